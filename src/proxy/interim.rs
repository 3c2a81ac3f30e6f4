//! Interim `102 Processing` answers, written under the HTTP server.
//!
//! The server library cannot send interim answers, so a second handle on the connection is kept: while a request waits
//! for the head of its answer, the fixed interim line may be written through it between two messages. Nothing else is
//! ever written then, because an HTTP/1 connection serves one request at a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::heads::Line;
use crate::proxy::meter::Afterwards;

const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A connection as the server library sees it, which remembers whether bytes wait to be written, and that some came, and
/// settles what was left for afterwards when all were written.
#[derive(Debug)]
pub(super) struct Observed {
    stream: TcpStream,
    backlog: Arc<AtomicBool>,
    afterwards: Afterwards,
    line: Arc<Line>,
}

/// The second handle on a connection.
#[derive(Debug)]
pub(super) struct Signs {
    socket: Socket,
    backlog: Arc<AtomicBool>,
    pub(super) afterwards: Afterwards,
}

/// Both handles of a connection, whose mark is `line`.
pub(super) fn share(stream: TcpStream, line: Arc<Line>) -> io::Result<(Observed, Signs)> {
    let backlog = Arc::new(AtomicBool::new(false));
    let signs = Signs {
        socket: SockRef::from(&stream).try_clone()?,
        backlog: backlog.clone(),
        afterwards: Afterwards::default(),
    };
    let observed = Observed {
        stream,
        backlog,
        afterwards: signs.afterwards.clone(),
        line,
    };
    Ok((observed, signs))
}

impl Signs {
    /// Tells the client that its request is being worked on. Left out, without harm, when the connection is busy.
    pub(super) fn give(&self) {
        if self.backlog.load(Ordering::Acquire) {
            return;
        }
        match self.socket.send(PROCESSING) {
            Ok(written) if written < PROCESSING.len() => {
                // Half a line would garble the answer: no client could read on. It never happens on a connection
                // whose buffer is empty; if it does, the connection must not live.
                self.backlog.store(true, Ordering::Release);
                if let Err(error) = self.socket.shutdown(std::net::Shutdown::Both) {
                    tracing::debug!(%error, "a garbled connection could not be shut");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "no interim answer could be written"),
        }
    }
}

impl Observed {
    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.backlog.store(poll.is_pending(), Ordering::Release);
        poll
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.line.came();
        }
        poll
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.afterwards.settle();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
