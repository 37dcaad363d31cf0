//! The two threads of an unpack: one reads, hashes and decompresses, the other hashes the tar and places its entries.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Error, HashingReader, Limits,
    compress::{Decompressor, WholeHead},
    digest::finish,
};

const BUFFER: usize = 512 * 1024;
const WAITING: usize = 4;

/// What is known of a stream when it has passed.
pub(super) struct Sums {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
    pub(super) uncompressed_size: u64,
}

/// Runs `place` over the uncompressed stream.
pub(super) fn run<T, R: Read + Send>(
    layer: R,
    limits: Limits,
    place: impl FnOnce(&mut Plain) -> Result<T, Error>,
) -> Result<(T, Sums), Error> {
    let (full_sender, full) = sync_channel(WAITING);
    let (empty_sender, empty) = sync_channel(WAITING + 2);
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("decompress".into())
            .spawn_scoped(scope, move || decompress(layer, &full_sender, &empty))
            .map_err(Error::Source)?;
        let mut plain = Plain {
            full,
            empty: empty_sender,
            buffer: Vec::new(),
            position: 0,
            hash: Sha256::new(),
            count: 0,
            limit: limits.uncompressed,
        };
        let placed = place(&mut plain);
        let Plain {
            full, hash, count, ..
        } = plain;
        // Lets a worker stop that still has something to send.
        drop(full);
        let source = worker.join().map_err(|_| Error::Worker)?;
        let value = placed?;
        let (digest, size) = source.ok_or(Error::Worker)?;
        Ok((
            value,
            Sums {
                digest,
                size,
                diff_id: finish(hash),
                uncompressed_size: count,
            },
        ))
    })
}

/// Sends the plain bytes; gives the digest and size of the source, or `None` when it failed or nobody listens any more.
fn decompress<R: Read>(
    layer: R,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Option<(Digest, u64)> {
    let mut plain = match Decompressor::new(WholeHead::new(HashingReader::new(layer))) {
        Ok(plain) => plain,
        Err(error) => {
            let _ = full.send(Err(error));
            return None;
        }
    };
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match plain.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = full.send(Err(error));
                    return None;
                }
            }
        }
        if filled == 0 {
            break;
        }
        buffer.truncate(filled);
        full.send(Ok(buffer)).ok()?;
    }
    // A decompressor may stop before the end of its source; the digest is over all of it.
    let mut source = plain.into_source();
    if let Err(error) = io::copy(&mut source, &mut io::sink()) {
        let _ = full.send(Err(error));
        return None;
    }
    Some(source.into_inner().into_inner().finish())
}

/// The uncompressed stream on the placing side.
pub(super) struct Plain {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    hash: Sha256,
    count: u64,
    limit: u64,
}

impl Read for Plain {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.position == self.buffer.len() {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let next = next?;
            self.hash.update(&next);
            self.count += next.len() as u64;
            if self.count > self.limit {
                return Err(io::Error::other(format!(
                    "more than {} bytes when uncompressed",
                    self.limit
                )));
            }
            let used = std::mem::replace(&mut self.buffer, next);
            self.position = 0;
            let _ = self.empty.try_send(used);
        }
        let n = buf.len().min(self.buffer.len() - self.position);
        buf[..n].copy_from_slice(&self.buffer[self.position..self.position + n]);
        self.position += n;
        Ok(n)
    }
}
