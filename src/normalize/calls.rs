//! Calls in order: each whole and contiguous, named once and first, numbered without gaps.
//!
//! Whatever arrives, parts of structured calls in any order or calls that were found in text, goes into one queue, and
//! the queue's front is what the client sees live. A call at the front says its name as soon as it is sure and lets its
//! arguments flow; everything behind waits until that call is over: when its arguments are complete and something
//! follows, when the upstream says so, or at the end. So no words and no other call ever stand inside a call, which
//! would cost the Python client the rest of the arguments.
//!
//! A call waits whole only where its end decides: one without a name is named by its arguments or dropped, and where a
//! provider both parsed a call and left its text, the copy is told by name and arguments.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use crate::normalize::arguments::Arguments;
use crate::normalize::boundary::Boundary;
use crate::normalize::event::{CallPart, Channel, Event};
use crate::normalize::ids::Ids;
use crate::normalize::names::Name;
use crate::normalize::repairs::{Kind, Repairs};
use crate::normalize::rules::Rules;
use crate::normalize::text::Text;

/// Most bytes that wait behind an open call; beyond, the call is taken to be over.
const MOST_WAITING: usize = 1024 * 1024;

/// Most argument bytes that are remembered to tell copies.
const MOST_REMEMBERED: usize = 32 * 1024;

/// Most calls that are remembered.
const MOST_CALLS: usize = 256;

/// The calls of one answer.
#[derive(Debug)]
pub(super) struct Calls {
    rules: Arc<Rules>,
    queue: VecDeque<Item>,
    /// Bytes in the queue.
    waiting: usize,
    ids: Ids,
    /// Calls that the client has seen begin.
    begun: usize,
    past: Vec<Past>,
    remembered: usize,
}

/// Where events and counts of one step go.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    pub(super) calls: &'a mut Calls,
    pub(super) repairs: &'a mut Repairs,
    pub(super) out: &'a mut Vec<Event>,
}

#[derive(Debug)]
enum Item {
    Text(Channel, Text),
    Call(Box<Call>),
}

#[derive(Debug)]
struct Call {
    origin: Origin,
    id: Option<String>,
    /// What was said in place of a name: the name of a structured call, the header of another.
    said: String,
    /// Arguments that did not go out yet.
    waiting: Text,
    /// The first arguments, to tell copies.
    first: Vec<u8>,
    length: usize,
    boundary: Boundary,
    arguments: Arguments,
    /// Its name and number, once the client has seen it begin.
    shown: Option<(String, usize)>,
    over: bool,
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A field of its own, under this number.
    Structured(Option<u64>),
    /// Text.
    Text,
}

/// A call that the client has seen end.
#[derive(Debug)]
struct Past {
    origin: Origin,
    id: Option<String>,
    said: String,
    name: String,
    arguments: Vec<u8>,
    length: usize,
    /// Its copy came, or it was one.
    paired: bool,
}

impl Sink<'_> {
    pub(super) fn count(&mut self, kind: Kind) {
        self.repairs.count(kind);
    }

    /// Words, which wait while a call is open.
    pub(super) fn text(&mut self, channel: Channel, text: &[u8]) {
        let calls = &mut *self.calls;
        if calls.queue.is_empty() {
            match self.out.last_mut() {
                Some(Event::Text(last, said)) if *last == channel => said.push(text),
                _ => self.out.push(Event::Text(channel, text_of(text))),
            }
            return;
        }
        if text.is_empty() {
            return;
        }
        calls.waiting += text.len();
        match calls.queue.back_mut() {
            Some(Item::Text(last, said)) if *last == channel => said.push(text),
            _ => calls.queue.push_back(Item::Text(channel, text_of(text))),
        }
        self.pump();
    }

    /// A call was found in text.
    pub(super) fn begin(&mut self, header: &str, kind: Kind) {
        self.count(kind);
        let call = Call::new(Origin::Text, None, header);
        self.calls.queue.push_back(Item::Call(call));
        self.pump();
    }

    /// The next arguments of the call that was found last.
    pub(super) fn arguments(&mut self, text: &[u8]) {
        if let Some(call) = self.calls.latest(|call| call.origin == Origin::Text) {
            call.take(text);
            self.calls.waiting += text.len();
            self.pump();
        }
    }

    /// The call that was found last is over.
    pub(super) fn end(&mut self) {
        if let Some(call) = self.calls.latest(|call| call.origin == Origin::Text) {
            call.over = true;
            self.pump();
        }
    }

    /// A part of a structured call.
    pub(super) fn part(&mut self, part: &CallPart) {
        let id = part.id.as_deref().filter(|id| !id.is_empty());
        let name = part.name.as_deref().filter(|name| !name.is_empty());
        let arguments = part.arguments.as_ref().map(Text::as_bytes);
        match self.calls.owner(part.slot, id, name) {
            Owner::Past => {
                if arguments.is_some_and(|text| !text.trim_ascii().is_empty()) {
                    self.count(Kind::TrailingJunk);
                }
                return;
            }
            Owner::Nobody => {
                if part.slot.is_none() && id.is_none() && name.is_none() && arguments.is_none() {
                    return;
                }
                let mut call = Call::new(
                    Origin::Structured(part.slot),
                    id.map(str::to_owned),
                    name.unwrap_or_default(),
                );
                call.take(arguments.unwrap_or_default());
                self.calls.queue.push_back(Item::Call(call));
            }
            Owner::Waiting(at) => {
                if let Some(Item::Call(call)) = self.calls.queue.get_mut(at) {
                    call.learn(id, name);
                    call.take(arguments.unwrap_or_default());
                }
                if at > 0 && arguments.is_some_and(|text| !text.is_empty()) {
                    self.count(Kind::CallOrder);
                }
            }
        }
        self.calls.waiting += arguments.map_or(0, <[u8]>::len);
        self.pump();
    }

    /// The upstream says that a structured call is over.
    pub(super) fn part_end(&mut self, slot: Option<u64>) {
        if let Some(call) = self.calls.latest(|call| call.is_structured(slot)) {
            call.over = true;
            self.pump();
        }
    }

    /// The answer is over, and so is every call.
    pub(super) fn finish(&mut self) {
        for item in &mut self.calls.queue {
            if let Item::Call(call) = item {
                call.over = true;
            }
        }
        self.pump();
    }

    /// Shows what may be shown.
    fn pump(&mut self) {
        if self.calls.waiting > MOST_WAITING
            && let Some(Item::Call(call)) = self.calls.queue.front_mut()
        {
            call.over = true;
        }
        while let Some(item) = self.calls.queue.pop_front() {
            match item {
                Item::Text(channel, text) => {
                    self.calls.waiting = self.calls.waiting.saturating_sub(text.as_bytes().len());
                    self.out.push(Event::Text(channel, text));
                }
                Item::Call(mut call) => {
                    let followed = !self.calls.queue.is_empty();
                    call.over |= followed && call.boundary.is_complete();
                    if !self.show(&mut call) {
                        self.calls.queue.push_front(Item::Call(call));
                        return;
                    }
                }
            }
        }
    }

    /// Shows what may be shown of the front call; tells whether it is done with.
    fn show(&mut self, call: &mut Call) -> bool {
        if call.shown.is_none() {
            match self.name(call) {
                Naming::Later => return false,
                Naming::Never => {
                    self.forget(call);
                    return true;
                }
                Naming::Now(name) => self.introduce(call, name),
            }
        }
        let Some((name, index)) = call.shown.clone() else {
            return true;
        };
        let mut text = call.waiting.clone();
        call.waiting = if call.over {
            Text::default()
        } else {
            text.split_half()
        };
        let taken = text.as_bytes().len();
        self.calls.waiting = self.calls.waiting.saturating_sub(taken);
        let mut shown = Vec::with_capacity(taken);
        call.arguments
            .push(text.as_bytes(), &mut shown, self.repairs);
        if call.over {
            call.arguments.end(&mut shown, self.repairs);
        }
        if !shown.is_empty() {
            let text = Text::from_bytes(shown);
            self.out.push(Event::CallArguments { index, text });
        }
        if call.over {
            self.out.push(Event::CallEnd { index });
            self.calls.remember(call, name, false);
        }
        call.over
    }

    fn name(&mut self, call: &mut Call) -> Naming {
        let rivals = self.calls.past.iter().any(|past| past.rivals(call));
        let waits_for_more = !call.over
            && call.length == 0
            && call.origin != Origin::Text
            && (call.id.is_none() || self.calls.may_grow(&call.said));
        if !call.over && (rivals || waits_for_more) {
            return Naming::Later;
        }
        let name = match self.calls.rules.tools.resolve(&call.said) {
            Name::Declared(name) | Name::Undeclared(name) => name,
            Name::Nameless if !call.over => return Naming::Later,
            Name::Nameless => {
                let arguments = call.waiting.as_bytes();
                let Some(name) = self.calls.rules.tools.infer(arguments) else {
                    self.count(Kind::CallDropped);
                    return Naming::Never;
                };
                let name = name.to_owned();
                self.count(Kind::NameInferred);
                name
            }
        };
        if rivals && self.calls.is_copy(call, &name) {
            self.count(Kind::CallTwice);
            self.calls.remember(call, name, true);
            return Naming::Never;
        }
        Naming::Now(name)
    }

    fn introduce(&mut self, call: &mut Call, name: String) {
        let recovered = call.origin == Origin::Text;
        let said = if recovered {
            Some(call.said.as_str())
        } else {
            call.id.as_deref()
        };
        if !recovered && name != call.said && !call.said.is_empty() {
            self.repairs.count(Kind::Name);
        }
        let id = {
            let Calls { ids, rules, .. } = &mut *self.calls;
            ids.assign(said, recovered, &name, || rules.calls_before, self.repairs)
        };
        let index = self.calls.begun;
        self.calls.begun += 1;
        call.shown = Some((name.clone(), index));
        self.out.push(Event::CallBegin { index, id, name });
    }

    fn forget(&mut self, call: &Call) {
        let bytes = call.waiting.as_bytes().len();
        self.calls.waiting = self.calls.waiting.saturating_sub(bytes);
    }
}

enum Naming {
    Now(String),
    Later,
    Never,
}

/// Whose a part is.
enum Owner {
    /// The call at this place of the queue.
    Waiting(usize),
    /// A call that is over.
    Past,
    /// No call so far.
    Nobody,
}

impl Calls {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            queue: VecDeque::new(),
            waiting: 0,
            ids: Ids::default(),
            begun: 0,
            past: Vec::new(),
            remembered: 0,
        }
    }

    /// Whether no call is open and nothing waits.
    pub(super) fn at_rest(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many calls the client has seen.
    pub(super) fn count(&self) -> usize {
        self.begun
    }

    /// How many bytes wait or are remembered.
    pub(super) fn held(&self) -> usize {
        let open = self.queue.iter().map(|item| match item {
            Item::Text(_, text) => text.as_bytes().len(),
            Item::Call(call) => call.waiting.as_bytes().len() + call.first.len(),
        });
        self.remembered + open.sum::<usize>()
    }

    fn latest(&mut self, which: impl Fn(&Call) -> bool) -> Option<&mut Call> {
        self.queue.iter_mut().rev().find_map(|item| match item {
            Item::Call(call) if !call.over && which(call) => Some(call.as_mut()),
            _ => None,
        })
    }

    /// Whose a part with this number, id and name is. The latest call of that number, or without a number the latest at
    /// all, owns it, unless the part says that another begins.
    fn owner(&mut self, slot: Option<u64>, id: Option<&str>, name: Option<&str>) -> Owner {
        let mut waiting = self.queue.iter_mut().enumerate().rev();
        let latest = waiting.find_map(|(at, item)| match item {
            Item::Call(call) if call.is_structured(slot) => Some((at, call)),
            _ => None,
        });
        if let Some((at, call)) = latest {
            let again =
                id.is_none() && name.is_some_and(|name| slot.is_none() || name != call.said);
            let another = name.is_some_and(|name| {
                name != call.said
                    && self.rules.tools.declares(name)
                    && self.rules.tools.declares(&call.said)
            });
            call.over |=
                differs(call.id.as_deref(), id) || another || call.boundary.is_complete() && again;
            return if call.over {
                Owner::Nobody
            } else {
                Owner::Waiting(at)
            };
        }
        let past = self.past.iter().rev().find(|past| match past.origin {
            Origin::Structured(number) => slot.is_none() || number == slot,
            Origin::Text => false,
        });
        let Some(past) = past else {
            return Owner::Nobody;
        };
        let other = differs(past.id.as_deref(), id)
            || id.is_none() && name.is_some_and(|name| slot.is_none() || name != past.said);
        if other { Owner::Nobody } else { Owner::Past }
    }

    /// Whether a name that is not declared may be the first part of one that is.
    fn may_grow(&self, said: &str) -> bool {
        let mut names = self.rules.tools.names();
        said.is_empty()
            || names.any(|name| name.len() > said.len() && name.starts_with(said))
                && !self.rules.tools.declares(said)
    }

    fn is_copy(&mut self, call: &Call, name: &str) -> bool {
        let copied = self.past.iter_mut().find(|past| {
            past.rivals(call)
                && past.name == name
                && past.length == past.arguments.len()
                && call.length == call.first.len()
                && same(&past.arguments, &call.first)
        });
        if let Some(past) = copied {
            past.paired = true;
            true
        } else {
            false
        }
    }

    fn remember(&mut self, call: &mut Call, name: String, paired: bool) {
        let mut arguments = std::mem::take(&mut call.first);
        if self.remembered + arguments.len() > MOST_REMEMBERED {
            arguments = Vec::new();
        }
        self.remembered += arguments.len();
        if self.past.len() < MOST_CALLS {
            self.past.push(Past {
                origin: call.origin,
                id: call.id.take(),
                said: std::mem::take(&mut call.said),
                name,
                arguments,
                length: call.length,
                paired,
            });
        }
    }
}

impl Call {
    fn new(origin: Origin, id: Option<String>, said: &str) -> Box<Self> {
        Box::new(Self {
            origin,
            id,
            said: said.to_owned(),
            waiting: Text::default(),
            first: Vec::new(),
            length: 0,
            boundary: Boundary::default(),
            arguments: Arguments::default(),
            shown: None,
            over: false,
        })
    }

    fn is_structured(&self, slot: Option<u64>) -> bool {
        match self.origin {
            Origin::Structured(number) => slot.is_none() || number == slot,
            Origin::Text => false,
        }
    }

    fn take(&mut self, text: &[u8]) {
        self.length += text.len();
        if self.length <= MOST_REMEMBERED {
            self.first.extend_from_slice(text);
        }
        let mut rest = text;
        while !rest.is_empty() && !self.boundary.is_complete() {
            let taken = self.boundary.take(rest);
            rest = &rest[taken..];
            if let (0, Some((first, more))) = (taken, rest.split_first()) {
                self.boundary.take_one(*first);
                rest = more;
            }
        }
        self.waiting.push(text);
    }

    /// Takes an id or a name that came later or again. Until the client has seen it, a name may come in parts.
    fn learn(&mut self, id: Option<&str>, name: Option<&str>) {
        if let (None, Some(id)) = (&self.id, id) {
            self.id = Some(id.to_owned());
        }
        if let Some(name) = name
            && self.shown.is_none()
            && self.said != name
        {
            self.said.push_str(name);
        }
    }
}

impl Past {
    /// Whether this may be a copy of that call.
    fn rivals(&self, call: &Call) -> bool {
        let text = |origin| origin == Origin::Text;
        !self.paired && text(self.origin) != text(call.origin)
    }
}

fn differs(known: Option<&str>, told: Option<&str>) -> bool {
    matches!((known, told), (Some(known), Some(told)) if known != told)
}

/// Whether two argument texts say the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    let value = |text: &[u8]| match text.trim_ascii() {
        b"" | b"null" => serde_json::from_str("{}").ok(),
        text => serde_json::from_slice::<Value>(text).ok(),
    };
    one == other || matches!((value(one), value(other)), (Some(one), Some(other)) if one == other)
}

fn text_of(text: &[u8]) -> Text {
    Text::from_bytes(text.to_vec())
}
