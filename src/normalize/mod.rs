//! What the model garbled, put right while it streams.
//!
//! Providers let the tool calls and the thinking of Kimi models arrive as raw markers, in the wrong field, cut over
//! chunks and with foreign ids. This room turns an answer's bytes into pieces, puts the pieces in order, and writes
//! bytes only where something was wrong; the request's history is cleaned on its way up in the same spirit.
//!
//! Invariants: what is right leaves as the bytes that came, in the event that brought it. Text waits for at most an
//! undecided marker. What has several readings is passed as it came, never guessed. Any split of the same bytes gives
//! the same answer, and what is held is bounded whatever arrives.
//!
//! It knows neither sockets nor clocks nor providers; [`Rules`] tells it what the request says.

mod answer;
mod arguments;
mod boundary;
mod calls;
mod chat;
mod encode_messages;
mod encode_responses;
mod event;
mod field;
mod finish;
mod frames;
mod grammar;
mod guard;
mod headless;
mod history;
mod ids;
mod k3;
mod markers;
mod mask;
mod members;
mod messages;
mod names;
mod reader;
mod repairs;
mod request;
mod rules;
mod stream;
mod tags;
mod text;
mod usual;
mod writing;

pub use answer::Answer;
pub use arguments::Arguments;
pub use encode_messages::{Counted, MessagesEncoder};
pub use encode_responses::ResponsesEncoder;
pub use event::{CallPart, Channel, Event, Finish, Piece};
pub use ids::{Ids, safe};
pub use names::{Name, Tools};
pub use repairs::{Kind, Repairs};
pub use request::Request;
pub use rules::{Asked, Rules};
pub use stream::{Repairer, whole_chat, whole_messages};
pub use text::Text;
