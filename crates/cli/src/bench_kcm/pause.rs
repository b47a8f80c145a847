//! K10: one of two threads takes no messages while it does something else for 10 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use peyk::kcm::{Config, Mux, Socket, Target};

use super::client::{Load, round};
use super::figure::{Figure, Goal};
use super::{frames, work};

const LOAD: Load = Load { connections: 4, depth: 1, bytes: 64, clients: 1, looks: false, pace: None };
const EVERY: Duration = Duration::from_millis(40);
const PAUSE: Duration = Duration::from_millis(10);

/// What the second thread does besides.
#[derive(Clone, Copy, PartialEq)]
enum Aside {
    Nothing,
    /// Works after saying that it takes no messages.
    Disabled,
    /// Works without saying so.
    Enabled,
}

fn answer(socket: &Socket, stop: &AtomicBool, aside: Aside) {
    let mut last = std::time::Instant::now();
    while !stop.load(Ordering::Acquire) {
        if let Ok(message) = socket.recv_timeout(Duration::from_millis(5)) {
            let reply = work::answer(&message).to_vec();
            let _ = peyk::block_on(socket.send_to(reply, Target::Psock(message.from())));
        }
        if aside == Aside::Nothing || last.elapsed() < EVERY {
            continue;
        }
        if aside == Aside::Disabled {
            let _ = socket.set_recv_disable(true);
        }
        std::thread::sleep(PAUSE);
        if aside == Aside::Disabled {
            let _ = socket.set_recv_disable(false);
        }
        last = std::time::Instant::now();
    }
}

/// 99th percentile in microseconds.
fn p99(time: Duration, aside: Aside) -> Result<f64> {
    let (mux, one) = Mux::open(Config::default())?;
    let two = one.try_clone()?;
    let addr = mux.listen("127.0.0.1:0".parse()?, frames(), false)?.local_addr();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<JoinHandle<()>> = [(one, Aside::Nothing), (two, aside)]
        .into_iter()
        .map(|(socket, aside)| {
            let stop = stop.clone();
            std::thread::spawn(move || answer(&socket, &stop, aside))
        })
        .collect();
    let round = round(addr, LOAD, time);
    stop.store(true, Ordering::Release);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the server panicked"))?;
    }
    Ok(round?.p99_us)
}

pub fn run(pairs: u32, time: Duration) -> Result<Vec<Figure>> {
    let (mut disabled, mut enabled) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let calm = p99(time, Aside::Nothing)?;
        disabled.push((calm, p99(time, Aside::Disabled)?));
        enabled.push((calm, p99(time, Aside::Enabled)?));
    }
    let what = |how: &str| format!("p99 in us while one of two threads works 10 ms, {how}");
    let beside = "both receive all the time";
    Ok(vec![
        Figure::new("k10", what("receiving disabled"), beside, &disabled, Goal::AtMost(1.1)),
        Figure::new("k10", what("receiving not disabled"), beside, &enabled, Goal::None),
    ])
}
