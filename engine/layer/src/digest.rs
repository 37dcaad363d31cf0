//! SHA-256 on the way through: readers and writers that know what passed.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};

pub use slipway_oci::Digest;

/// Turns a finished hash into the digest that manifests carry.
pub(crate) fn finish(hash: Sha256) -> Digest {
    Digest::from_sha256(hash.finalize().into())
}

/// Hashes and counts everything that is read through it.
pub struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
        }
    }

    /// Bytes that passed so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the hash: the digest of all that was read, and how many bytes it was.
    pub fn finish(self) -> (Digest, u64) {
        (finish(self.hash), self.count)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Hashes and counts everything that is written through it.
pub struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
        }
    }

    /// Bytes that passed so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the hash: the writer back, the digest of all that was written, and how many bytes it was.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, finish(self.hash), self.count)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
