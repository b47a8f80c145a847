//! What a packet costs beside 1, 1,000 and 100,000 open RPCs, and what the parts that have to scale cost
//! by themselves: time, in which the misses of caches and of the TLB count. What the protocol does is
//! counted in instructions by `instructions`.
//!
//! Ratios are to the cost with one open RPC. Run with `cargo bench -p peyk-homa --bench open_rpcs`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench measures real time")]

use core::hint::black_box;
use core::time::Duration;

use peyk_homa::completed::{Completed, CompletedConfig};
use peyk_homa::grant::{GrantConfig, GrantOut, Grants};
use peyk_homa::srpt::SendQueue;
use peyk_sansio::{Instant, Prng};

mod open;

use open::{HOSTS, OPEN, call, receive, serve};

/// Nanoseconds per run of `f`, of `rounds` runs.
fn measure(rounds: usize, mut f: impl FnMut()) -> f64 {
    for _ in 0..rounds / 10 {
        f();
    }
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        f();
    }
    start.elapsed().as_nanos() as f64 / rounds as f64
}

/// What no protocol avoids: 16 bytes written to a random one of `open` buffers of 40 kB, and a record of
/// 64 bytes of it read and changed.
fn touch(open: usize, rounds: usize) -> f64 {
    let mut pool = vec![0u8; open * 65_536];
    let mut records = vec![[0u64; 8]; open];
    let mut random = Prng::new(7);
    measure(rounds, || {
        let i = random.below(open as u64) as usize;
        let record = &mut records[i];
        let offset = record[0] as usize % 40_000;
        record[0] += 16;
        pool[i * 65_536 + offset..][..16].copy_from_slice(&[7; 16]);
    })
}

/// One packet of one of `open` messages in the grant scheduler alone.
fn grants(open: usize, rounds: usize) -> f64 {
    let mut grants = Grants::new(GrantConfig::default());
    let mut random = Prng::new(3);
    let mut received = vec![0u32; open];
    let birth = |n: usize| Instant::from_nanos(n as u64);
    for slot in 0..open {
        grants.manage(slot as u32, (slot % HOSTS) as u32, 1_000_000, 10_000, 0, birth(slot));
    }
    let mut out: Vec<GrantOut> = Vec::new();
    let mut now = 0;
    measure(rounds, || {
        let slot = random.below(open as u64) as usize;
        received[slot] += 1000;
        grants.on_received(slot as u32, received[slot]);
        if received[slot] == 1_000_000 {
            received[slot] = 0;
            grants.manage(slot as u32, (slot % HOSTS) as u32, 1_000_000, 10_000, 0, birth(now as usize));
        }
        now += 100;
        grants.poll(Instant::from_nanos(now), &mut out);
        out.clear();
    })
}

/// One packet sent of the best of `open` messages in the send queue alone.
fn send_queue(open: usize, rounds: usize) -> f64 {
    let mut queue = SendQueue::new();
    let mut random = Prng::new(5);
    let mut left: Vec<u32> = (0..open).map(|_| 10_000 + random.below(900_000) as u32).collect();
    for (slot, &left) in left.iter().enumerate() {
        queue.insert(slot as u32, left, Instant::ZERO);
    }
    measure(rounds, || {
        let slot = queue.best().expect("never empty");
        let left = &mut left[slot as usize];
        if *left <= 1424 {
            queue.remove(slot);
            *left = 10_000 + random.below(900_000) as u32;
            queue.insert(slot, *left, Instant::ZERO);
        } else {
            *left -= 1424;
            queue.update(slot, *left);
        }
    })
}

fn print(name: &str, costs: [f64; 3]) {
    let ratio = |n: usize| costs[n] / costs[0];
    println!(
        "{name:<44} {:>8.0} ns {:>8.0} ns ({:.2}x) {:>8.0} ns ({:.2}x)",
        costs[0],
        costs[1],
        ratio(1),
        costs[2],
        ratio(2)
    );
}

fn record() {
    let config = CompletedConfig { retention: Duration::from_secs(1), max_chunks: 65_536 };
    let mut record = Completed::new(config, 1);
    let mut id = 0;
    let insert = measure(5_000_000, || {
        id += 2;
        black_box(record.insert(Instant::ZERO, 3, id));
    });
    let contains = measure(5_000_000, || {
        id += 2;
        black_box(record.contains(3, id & 0xff_ffff));
    });
    let mut random = Prng::new(1);
    let scattered = measure(5_000_000, || {
        let n = random.next_u64();
        black_box(record.insert(Instant::ZERO, n as u32 % 64, n >> 42));
    });
    println!("finished-RPC record: insert {insert:.1} ns, look-up {contains:.1} ns in sequence; insert");
    println!("  {scattered:.1} ns at random places of 64 peers x 4M ids");
}

fn main() {
    let scale = if std::env::args().any(|arg| arg == "--test") { 1000 } else { 1 };
    let head = "cost per packet";
    println!("{head:<44} {:>11} {:>19} {:>19}", "1 open", "1,000 open", "100,000 open");
    let rounds = 1_000_000 / scale;
    print("small request served (in service beside it)", OPEN.map(|n| serve(n, &mut |f| measure(rounds, f))));
    let costs = OPEN.map(|n| receive(n, &mut |f| measure(rounds, f)));
    print("DATA of a long request (all need grants)", costs);
    print("  a write to as many random cold places", OPEN.map(|n| touch(n, rounds)));
    print("response received, next request sent", OPEN.map(|n| call(n, &mut |f| measure(rounds, f))));
    println!("cost of the parts, per packet");
    print("grant scheduler", OPEN.map(|n| grants(n, 2_000_000 / scale)));
    print("send queue", OPEN.map(|n| send_queue(n, 2_000_000 / scale)));
    record();
}
