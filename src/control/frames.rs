//! The stream between an attached window and the host: frames of one kind byte, a length, and a payload.
//!
//! ```text
//! +------+---------------+-----------+
//! | kind | length, u32BE | payload   |
//! +------+---------------+-----------+
//! up:   h hello (JSON)   i input   r resize (2 x u16BE)   f paint afresh
//! down: o output         b bye (JSON)
//! ```
//!
//! The window says `h` first. A frame is at most 1 MiB. The outgoing channel of a host end holds one frame, so that
//! having room in it means that the window has taken the frame before: the host then paints the newest state and
//! never queues old ones.

use std::io;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Longest payload. A full picture of a very large window takes some 100 KiB.
const LONGEST: usize = 1 << 20;

/// What a window says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The run to show; without it, the only one or the newest.
    pub run: Option<String>,
    /// Columns and rows.
    pub size: (u16, u16),
    /// `TERM`.
    pub term: String,
    /// `COLORTERM`.
    pub colorterm: String,
    /// `NO_COLOR` is set.
    #[serde(default)]
    pub no_color: bool,
    /// The host shall end with this window: `--foreground`.
    pub last: bool,
}

/// From a window to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up {
    /// Keys and answers of the user's terminal, as read.
    Input(Bytes),
    /// Columns and rows.
    Resize(u16, u16),
    /// The window was suspended: switch everything on again and paint all.
    Afresh,
}

/// From the host to a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// Bytes for the user's terminal.
    Output(Bytes),
    /// The end.
    Bye(Bye),
}

/// Why a window closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub enum Bye {
    /// The user let go; the run goes on.
    Detached {
        /// Name of the run.
        run: String,
    },
    /// The run has ended.
    Ended {
        /// Name of the run.
        run: String,
        /// What to print: how to resume.
        lines: Vec<String>,
    },
    /// It could not be shown.
    Refused {
        /// Why.
        message: String,
    },
}

/// The host's end of a window's stream.
#[derive(Debug)]
pub struct HostEnd {
    /// What the window said first.
    pub hello: Hello,
    /// What it says since; closed when it is gone.
    pub up: mpsc::Receiver<Up>,
    /// What it is sent. Holds one frame.
    pub down: mpsc::Sender<Down>,
}

/// Takes a window's stream: waits for its hello, then moves frames in two tasks until either side goes.
pub async fn accept<S>(stream: S, tracker: &TaskTracker) -> io::Result<HostEnd>
where
    S: AsyncRead + AsyncWrite + std::marker::Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let hello = match read(&mut reader).await? {
        Some((b'h', payload)) => serde_json::from_slice(&payload).map_err(io::Error::from)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a window must say hello first",
            ));
        }
    };
    let (up_in, up) = mpsc::channel(64);
    let (down, mut down_out) = mpsc::channel(1);
    tracker.spawn(async move {
        loop {
            let frame = match read_up(&mut reader).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a window's stream broke");
                    break;
                }
            };
            if up_in.send(frame).await.is_err() {
                break;
            }
        }
    });
    tracker.spawn(async move {
        while let Some(frame) = down_out.recv().await {
            if let Err(error) = write_down(&mut writer, &frame).await {
                tracing::debug!(%error, "a window could not be painted");
                break;
            }
        }
        if let Err(error) = writer.shutdown().await {
            tracing::debug!(%error, "a window was gone already");
        }
    });
    Ok(HostEnd { hello, up, down })
}

/// Says hello for a window.
pub(crate) async fn greet(writer: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    write(
        writer,
        b'h',
        &serde_json::to_vec(hello).map_err(io::Error::from)?,
    )
    .await
}

pub(crate) async fn write_up(writer: &mut (impl AsyncWrite + Unpin), frame: &Up) -> io::Result<()> {
    match frame {
        Up::Input(bytes) => write(writer, b'i', bytes).await,
        Up::Resize(columns, rows) => {
            let [a, b] = columns.to_be_bytes();
            let [c, d] = rows.to_be_bytes();
            write(writer, b'r', &[a, b, c, d]).await
        }
        Up::Afresh => write(writer, b'f', b"").await,
    }
}

/// The next frame of the host; `None` when it closed the stream without a bye.
pub(crate) async fn read_down(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Down>> {
    loop {
        return Ok(Some(match read(reader).await? {
            None => return Ok(None),
            Some((b'o', payload)) => Down::Output(payload),
            Some((b'b', payload)) => {
                Down::Bye(serde_json::from_slice(&payload).map_err(io::Error::from)?)
            }
            // A later version may say more.
            Some(_) => continue,
        }));
    }
}

async fn read_up(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Up>> {
    loop {
        return Ok(Some(match read(reader).await? {
            None => return Ok(None),
            Some((b'i', payload)) => Up::Input(payload),
            Some((b'r', payload)) => match payload[..] {
                [a, b, c, d] => Up::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a resize has four bytes",
                    ));
                }
            },
            Some((b'f', _)) => Up::Afresh,
            Some(_) => continue,
        }));
    }
}

async fn write_down(writer: &mut (impl AsyncWrite + Unpin), frame: &Down) -> io::Result<()> {
    match frame {
        Down::Output(bytes) => {
            for piece in bytes.chunks(LONGEST) {
                write(writer, b'o', piece).await?;
            }
            Ok(())
        }
        Down::Bye(bye) => {
            write(
                writer,
                b'b',
                &serde_json::to_vec(bye).map_err(io::Error::from)?,
            )
            .await
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= LONGEST)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long"))?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await?;
    writer.flush().await
}

async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Bytes)>> {
    let kind = match reader.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(reader.read_u32().await?).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is too long",
        ));
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Some((kind, payload.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_cross_whole_whatever_the_pipe_holds() {
        let (near, far) = tokio::io::duplex(7);
        let tracker = TaskTracker::new();
        let hello = Hello {
            run: Some("a".into()),
            size: (80, 24),
            ..Hello::default()
        };
        let said = hello.clone();
        let (mut reader, mut writer) = tokio::io::split(near);
        let window = async {
            greet(&mut writer, &said).await.unwrap();
            write_up(&mut writer, &Up::Input(Bytes::from_static(b"\x1b[A")))
                .await
                .unwrap();
            write_up(&mut writer, &Up::Resize(300, 2)).await.unwrap();
            write_up(&mut writer, &Up::Afresh).await.unwrap();
            let first = read_down(&mut reader).await.unwrap();
            let second = read_down(&mut reader).await.unwrap();
            (first, second)
        };
        let host = async {
            let mut end = accept(far, &tracker).await.unwrap();
            assert_eq!(end.hello, hello);
            assert_eq!(
                end.up.recv().await,
                Some(Up::Input(Bytes::from_static(b"\x1b[A")))
            );
            assert_eq!(end.up.recv().await, Some(Up::Resize(300, 2)));
            assert_eq!(end.up.recv().await, Some(Up::Afresh));
            end.down
                .send(Down::Output(Bytes::from_static(b"picture")))
                .await
                .unwrap();
            end.down
                .send(Down::Bye(Bye::Detached { run: "a".into() }))
                .await
                .unwrap();
        };
        let ((first, second), ()) = tokio::join!(window, host);
        assert_eq!(first, Some(Down::Output(Bytes::from_static(b"picture"))));
        assert_eq!(second, Some(Down::Bye(Bye::Detached { run: "a".into() })));
    }

    #[tokio::test]
    async fn a_stranger_is_turned_away() {
        let tracker = TaskTracker::new();
        for said in [&b"i\0\0\0\x01x"[..], b"h\xff\xff\xff\xff", b"h\0\0\0\x02{}"] {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(said).await.unwrap();
            assert!(accept(far, &tracker).await.is_err(), "{said:?}");
        }
    }
}
