//! The two threads of a pack, and the buffers between them.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Compression, Digest, Error, HashingWriter,
    compress::Compressor,
    digest::finish,
    tar::{BLOCK, padding},
};

/// Size of a buffer, and how many may wait: they bound a pack's memory together with the compressor's own.
const BUFFER: usize = 1 << 20;
const WAITING: usize = 4;

/// What happens to the tar on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Through {
    pub(crate) compression: Compression,
    pub(crate) threads: usize,
}

/// What is known of a stream when it has passed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) diff_id: Digest,
    pub(crate) uncompressed_size: u64,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

pub(crate) struct Pipeline;

impl Pipeline {
    /// Runs `produce` on this thread, and compression, the second hash and `sink` on another.
    pub(crate) fn run<T, W: Write + Send>(
        sink: W,
        through: Through,
        produce: impl FnOnce(&mut TarSink) -> Result<T, Error>,
    ) -> Result<(T, Done, W), Error> {
        let (full_sender, full) = sync_channel(WAITING);
        let (empty_sender, empty) = sync_channel(WAITING + 2);
        thread::scope(|scope| {
            let worker = thread::Builder::new()
                .name("compress".into())
                .spawn_scoped(scope, move || consume(sink, through, &full, &empty_sender))
                .map_err(Error::Sink)?;
            let mut tar = TarSink {
                buffer: Vec::with_capacity(BUFFER),
                full: full_sender,
                empty,
                hash: Sha256::new(),
                count: 0,
            };
            let produced = produce(&mut tar).and_then(|value| tar.send().map(|()| value));
            let TarSink {
                hash, count, full, ..
            } = tar;
            // The worker ends when nobody can send any more.
            drop(full);
            let consumed = worker.join().map_err(|_| Error::Worker)?;
            match (produced, consumed) {
                // The walker's `Worker` error only says that the other side is gone; the other side knows why.
                (Err(Error::Worker) | Ok(_), Err(error)) => Err(Error::Sink(error)),
                (Err(error), _) => Err(error),
                (Ok(value), Ok((sink, digest, size))) => {
                    let done = Done {
                        diff_id: finish(hash),
                        uncompressed_size: count,
                        digest,
                        size,
                    };
                    Ok((value, done, sink))
                }
            }
        })
    }
}

fn consume<W: Write>(
    sink: W,
    through: Through,
    full: &Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
) -> io::Result<(W, Digest, u64)> {
    let threads = match through.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut compressor = Compressor::new(HashingWriter::new(sink), through.compression, threads)?;
    for mut buffer in full {
        compressor.write_all(&buffer)?;
        buffer.clear();
        // A full return queue or a producer at its end: the buffer is simply freed.
        let _ = empty.try_send(buffer);
    }
    let mut hashing = compressor.finish()?;
    hashing.flush()?;
    Ok(hashing.finish())
}

/// Where the walker writes the tar: fills buffers, hashes them and hands them over.
pub(crate) struct TarSink {
    buffer: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    hash: Sha256,
    count: u64,
}

impl TarSink {
    /// Appends bytes.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let n = bytes.len().min(BUFFER - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.buffer.len() == BUFFER {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Appends what a read of `file` brings, straight into the buffer and at most `limit` bytes; 0 at the file's end.
    pub(crate) fn read_from(&mut self, file: impl AsFd, limit: u64) -> Result<u64, io::Error> {
        if self.buffer.len() == BUFFER {
            self.send()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        let start = self.buffer.len();
        let read = loop {
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut self.buffer)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        // A file that grows while it is read brings more than its header announced: that does not belong here.
        let n = (read? as u64).min(limit);
        self.buffer.truncate(start + n as usize);
        Ok(n)
    }

    /// Zeroes up to the next block behind `size` bytes of data.
    pub(crate) fn pad(&mut self, size: u64) -> Result<(), Error> {
        self.write_all(&[0; BLOCK][..padding(size)])
    }

    fn send(&mut self) -> Result<(), Error> {
        self.hash.update(&self.buffer);
        self.count += self.buffer.len() as u64;
        let next = self
            .empty
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        self.full
            .send(std::mem::replace(&mut self.buffer, next))
            .map_err(|_| Error::Worker)
    }
}
