//! Copies a file, eight pieces at a time, with progress; the copy is on the device at the end.
//!
//! `cargo run --release -p peyk --example copy -- FROM TO`

use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use peyk::kevent::local::{File, Local};
use peyk::kevent::{Config, Data, OpenOptions};

const PIECE: u64 = 1 << 20;
const AT_ONCE: u64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(from), Some(to)) = (args.next(), args.next()) else {
        return Err("usage: copy FROM TO".into());
    };
    let local = Local::new(Config::default())?;
    let executor = local.clone();
    local.block_on(async move {
        let from = File::open(&executor, &from).await?;
        let new = OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() };
        let to = File::open_with(&executor, &to, new).await?;
        let len = from.file_len()?;
        let start = Instant::now();

        // Each task copies every eighth piece, in its own buffer.
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|first| {
                let (from, to) = (from.clone(), to.clone());
                executor.spawn(async move { copy_pieces(from, to, first, len).await })
            })
            .collect();
        let progress = executor.clone();
        let written = to.clone();
        executor.spawn(async move {
            while progress.sleep(Duration::from_millis(200)).await.is_ok() {
                let percent = 100 * written.file_len().unwrap_or(0) / len.max(1);
                eprint!("\r{percent:>3} % ");
                let _ = std::io::stderr().flush();
            }
        });
        for task in tasks {
            task.await?;
        }
        to.sync().await?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("\r{len} bytes in {seconds:.2} s, {:.0} MB/s", len as f64 / seconds / 1e6);
        executor.stop(); // the progress would go on for ever
        Ok(())
    })
}

async fn copy_pieces(from: File, to: File, first: u64, len: u64) -> std::io::Result<()> {
    let mut buf = vec![0; PIECE as usize].into();
    for offset in (first * PIECE..len).step_by((AT_ONCE * PIECE) as usize) {
        let (mut full, bytes) = from.read_at(buf, offset).await?;
        full.set_len(bytes);
        let Data::Buf(mut back) = to.write_at(full, offset).await? else {
            return Err(std::io::Error::other("another buffer came back"));
        };
        back.set_len(back.capacity());
        buf = back;
    }
    Ok(())
}
