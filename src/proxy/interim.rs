//! Interim `102 Processing` answers, written under the HTTP server.
//!
//! The server library cannot send interim answers, so the connection is shared: the library reads and writes it, and
//! while a request waits for the head of its answer the exchange may write the fixed interim line between two
//! messages. Nothing else is ever written then, because an HTTP/1 connection serves one request at a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// One side of a connection that the interim writer shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    stream: Arc<TcpStream>,
    /// The last write did not fit, so bytes of an earlier answer may still have to go out first.
    backlog: Arc<AtomicBool>,
}

impl Shared {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Arc::new(stream),
            backlog: Arc::default(),
        }
    }

    /// Tells the client that its request is being worked on. Left out, without harm, when the connection is busy.
    pub(super) fn sign_of_life(&self) {
        if self.backlog.load(Ordering::Acquire) {
            return;
        }
        match self.stream.try_write(PROCESSING) {
            Ok(written) if written < PROCESSING.len() => {
                // Half a line would garble the answer: no client could read on. It never happens on a connection
                // whose buffer is empty; if it does, the connection must not live.
                self.backlog.store(true, Ordering::Release);
                if let Err(error) = shut(&self.stream) {
                    tracing::debug!(%error, "a garbled connection could not be shut");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "no interim answer could be written"),
        }
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Shared {
    fn poll_try(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(context) {
                Poll::Pending => {
                    self.backlog.store(true, Ordering::Release);
                    return Poll::Pending;
                }
                Poll::Ready(ready) => ready?,
            }
            match write(&self.stream) {
                Ok(written) => {
                    self.backlog.store(false, Ordering::Release);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shut(&self.stream))
    }
}

fn shut(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}
