//! Which compressions a layer may have, how they are told apart, and the writers and readers for them.

use std::io::{self, BufRead, BufReader, Read, Write};

use slipway_oci::media_type as oci;

mod gzip;

pub(crate) use gzip::ParallelGzip;

/// How a layer's tar is compressed.
///
/// The compressed bytes are a function of the input, this value and the version of the compression library alone:
/// neither the number of threads nor the machine shows in them. They may change between releases of Slipway; the diff
/// id does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    Uncompressed,
    /// gzip (RFC 1952) with a deflate level of 0 to 9.
    Gzip(u32),
    /// Zstandard (RFC 8878) with a level of 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// gzip at the level that the gzip program uses by default.
    pub const GZIP: Self = Self::Gzip(6);
    /// Zstandard at the level that the zstd program uses by default.
    pub const ZSTD: Self = Self::Zstd(3);

    /// The word of exporters' `compression` attribute: `uncompressed`, `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip(_) => "gzip",
            Self::Zstd(_) => "zstd",
        }
    }

    /// The compression of that name at its default level, or at `level`, brought into the range that it knows.
    pub fn from_name(name: &str, level: Option<i32>) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::Uncompressed),
            "gzip" => Some(Self::Gzip(level.unwrap_or(6).clamp(0, 9) as u32)),
            "zstd" => Some(Self::Zstd(level.unwrap_or(3).clamp(1, 22))),
            _ => None,
        }
    }

    /// Tells the compression from the first bytes of a stream; four are enough. What is neither gzip nor Zstandard is
    /// taken as plain.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::GZIP,
            // A skippable frame (0x184D2A5?) may stand in front of the data: estargz-like tools put one there.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::ZSTD,
            _ => Self::Uncompressed,
        }
    }

    /// What a layer's media type claims. The claim is often wrong (a `tar+gzip` that is plain), so readers use
    /// [`Compression::detect`] and this only serves to describe.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        if !media_type.contains(".tar") {
            None
        } else if media_type.ends_with("gzip") {
            Some(Self::GZIP)
        } else if media_type.ends_with("zstd") {
            Some(Self::ZSTD)
        } else {
            Some(Self::Uncompressed)
        }
    }
}

/// The media type of a layer with that compression, by the OCI image specification or, with `docker`, by Docker's
/// schema 2 (whose zstd type is not in the specification, but is what BuildKit and containerd write).
pub fn media_type(compression: Compression, docker: bool) -> &'static str {
    match (compression, docker) {
        (Compression::Uncompressed, false) => oci::OCI_LAYER,
        (Compression::Gzip(_), false) => oci::OCI_LAYER_GZIP,
        (Compression::Zstd(_), false) => oci::OCI_LAYER_ZSTD,
        (Compression::Uncompressed, true) => oci::DOCKER_LAYER,
        (Compression::Gzip(_), true) => oci::DOCKER_LAYER_GZIP,
        (Compression::Zstd(_), true) => oci::DOCKER_LAYER_ZSTD,
    }
}

/// A compressing writer; `finish` must be called, or the stream stays without its end.
pub(crate) enum Compressor<W: Write> {
    Plain(W),
    Gzip(ParallelGzip<W>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    pub(crate) fn new(sink: W, compression: Compression, threads: usize) -> io::Result<Self> {
        Ok(match compression {
            Compression::Uncompressed => Self::Plain(sink),
            Compression::Gzip(level) => Self::Gzip(ParallelGzip::new(sink, level, threads)?),
            Compression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, level)?;
                // Zero workers cut the input differently than one or more do; from one on the result is the same
                // for any number (zstd.h, ZSTD_c_nbWorkers). So there is always at least one.
                encoder.multithread(threads.max(1) as u32)?;
                encoder.include_checksum(true)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(sink) => Ok(sink),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(sink) => sink.write(buf),
            Self::Gzip(gzip) => gzip.write(buf),
            Self::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(sink) => sink.flush(),
            Self::Gzip(gzip) => gzip.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// A decompressing reader over a stream whose compression was told from its first bytes (so the first read must bring
/// enough of them: see [`WholeHead`]).
pub(crate) enum Decompressor<R: Read> {
    Plain(BufReader<R>),
    /// Many members in a row are one stream (RFC 1952 section 2.2); parallel compressors write such files.
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Decompressor<R> {
    pub(crate) fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(256 * 1024, source);
        let head = source.fill_buf()?;
        Ok(match Compression::detect(head) {
            Compression::Uncompressed => Self::Plain(source),
            Compression::Gzip(_) => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd(_) => Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
        })
    }

    pub(crate) fn into_source(self) -> BufReader<R> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}

/// Makes the first read of a source at least `HEAD` bytes long, where the source has that many, so that the
/// compression can be told from it.
pub(crate) struct WholeHead<R> {
    inner: R,
    started: bool,
}

const HEAD: usize = 4;

impl<R: Read> WholeHead<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            started: false,
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for WholeHead<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while !self.started && filled < HEAD && filled < buf.len() {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.started {
            return self.inner.read(buf);
        }
        self.started = true;
        Ok(filled)
    }
}
