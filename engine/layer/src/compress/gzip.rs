//! gzip on several threads, with bytes that do not depend on how many.
//!
//! ```text
//! input ─┬─ block 0 ─▶ deflate ─▶ …sync flush ─┐
//!        ├─ block 1 ─▶ deflate ─▶ …sync flush ─┼─▶ one gzip member, in order ─▶ sink
//!        └─ block n ─▶ deflate ─▶ …final block ─┘
//! ```
//! Each block is deflated by itself from an empty window and ends on a byte boundary, so the blocks can be joined to
//! one deflate stream. One member (and not one for each block) because some old clients read the first member only.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
};

use flate2::{Compress, Crc, FlushCompress, Status};

/// Large enough that the empty window at each start costs about a thousandth of the size; small enough that a few of
/// them in flight stay within the memory bound of a pack.
const BLOCK: usize = 1 << 20;

struct Job {
    data: Vec<u8>,
    last: bool,
    reply: SyncSender<io::Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// A gzip writer whose blocks are compressed side by side.
pub(crate) struct ParallelGzip<W: Write> {
    sink: W,
    block: Vec<u8>,
    crc: Crc,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
    most_pending: usize,
}

impl<W: Write> ParallelGzip<W> {
    pub(crate) fn new(mut sink: W, level: u32, threads: usize) -> io::Result<Self> {
        // No name, no time: the header must not tell when or where. XFL says "fastest" or "best" as gzip does; OS is
        // "unknown" as Go's writer has it.
        let extra = match level {
            0 | 1 => 4,
            9.. => 2,
            _ => 0,
        };
        sink.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])?;
        let threads = threads.clamp(1, 16);
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new()
                    .name("gzip".into())
                    .spawn(move || work(&queue, level))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            sink,
            block: Vec::with_capacity(BLOCK),
            crc: Crc::new(),
            jobs: Some(jobs),
            workers,
            pending: VecDeque::new(),
            most_pending: threads * 2,
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.jobs = None;
        for worker in std::mem::take(&mut self.workers) {
            worker
                .join()
                .map_err(|_| io::Error::other("a gzip worker panicked"))?;
        }
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.sink)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let data = std::mem::replace(&mut self.block, Vec::with_capacity(if last { 0 } else { BLOCK }));
        let (reply, answer) = sync_channel(1);
        let job = Job { data, last, reply };
        match &self.jobs {
            Some(jobs) => jobs
                .send(job)
                .map_err(|_| io::Error::other("the gzip workers are gone"))?,
            None => return Err(io::Error::other("write after the end of a gzip stream")),
        }
        self.pending.push_back(answer);
        if self.pending.len() > self.most_pending {
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        if let Some(answer) = self.pending.pop_front() {
            let part = answer
                .recv()
                .map_err(|_| io::Error::other("a gzip worker is gone"))??;
            self.crc.combine(&part.crc);
            self.sink.write_all(&part.bytes)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        Ok(n)
    }

    /// Does nothing: a flush in the middle would make the bytes depend on who called it when.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A receiver that is gone means that the sink failed; the error is already on its way to the caller.
        let _ = job.reply.send(deflate(&job.data, level, job.last));
    }
}

fn deflate(data: &[u8], level: u32, last: bool) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(data);
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(data.len() / 2 + 1024);
    loop {
        if bytes.capacity() - bytes.len() < 1024 {
            bytes.reserve(data.len() / 4 + 4096);
        }
        let room = bytes.capacity() - bytes.len();
        let before = bytes.len();
        let rest = &data[compress.total_in() as usize..];
        let status = compress
            .compress_vec(rest, &mut bytes, flush)
            .map_err(io::Error::other)?;
        let all_in = compress.total_in() as usize == data.len();
        match status {
            Status::StreamEnd => break,
            // A flush is complete when the output buffer was not filled up (zlib.h, deflate()).
            _ if !last && all_in && bytes.len() - before < room => break,
            Status::Ok | Status::BufError => {}
        }
    }
    Ok(Deflated { bytes, crc })
}
