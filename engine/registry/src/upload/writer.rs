//! A blocking writer over an upload: the packer of a layer knows nothing of async.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::stream::{BlobUpload, UploadedBlob};
use crate::error::{Class, Error, Result};

/// Bytes gathered before they are handed to the sending task.
const PIECE: usize = 256 << 10;
/// Pieces on their way; with [`PIECE`] and one chunk this is all the memory an upload takes.
const QUEUE: usize = 8;

enum Message {
    Data(Bytes),
    Finish,
}

/// `std::io::Write` that uploads. Only for blocking threads: it waits for the network. Dropped without
/// [`BlobWriter::finish`], the upload is given up.
#[derive(Debug)]
pub struct BlobWriter {
    buffer: BytesMut,
    queue: mpsc::Sender<Message>,
    outcome: Option<oneshot::Receiver<Result<UploadedBlob>>>,
}

impl BlobWriter {
    pub(super) fn new(mut upload: BlobUpload) -> Self {
        let (queue, mut messages) = mpsc::channel(QUEUE);
        let (report, outcome) = oneshot::channel();
        tokio::spawn(async move {
            loop {
                match messages.recv().await {
                    Some(Message::Data(bytes)) => {
                        if let Err(error) = upload.write(bytes).await {
                            let _ = report.send(Err(error));
                            return;
                        }
                    }
                    Some(Message::Finish) => {
                        let _ = report.send(upload.finish().await);
                        return;
                    }
                    None => {
                        upload.abort().await;
                        return;
                    }
                }
            }
        });
        Self {
            buffer: BytesMut::with_capacity(PIECE),
            queue,
            outcome: Some(outcome),
        }
    }

    /// Waits until the registry has everything and the blob exists.
    pub fn finish(mut self) -> Result<UploadedBlob> {
        let sent = self.hand_over().and_then(|()| self.send(Message::Finish));
        match (sent, self.outcome.take()) {
            (Ok(()), Some(outcome)) => outcome.blocking_recv().unwrap_or_else(|_| Err(stopped())),
            (Err(error), _) => Err(Error::from_io(error)),
            (Ok(()), None) => Err(stopped()),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.send(Message::Data(piece))
    }

    fn send(&mut self, message: Message) -> io::Result<()> {
        if self.queue.blocking_send(message).is_ok() {
            return Ok(());
        }
        // The task has ended before its time: it has left the reason.
        let reason = self
            .outcome
            .take()
            .and_then(|outcome| outcome.blocking_recv().ok());
        Err(reason.and_then(Result::err).unwrap_or_else(stopped).into())
    }
}

impl io::Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

fn stopped() -> Error {
    Error::new(
        Class::Local,
        "the upload was stopped: its runtime has ended or it had failed before",
    )
}
