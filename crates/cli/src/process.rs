//! What a measuring process asks of the operating system: CPU time, precise sleeps, a place to run, and to die
//! with its parent.

use std::time::Instant;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
        signal::Signal,
        time::TimeValLike,
    },
    unistd::Pid,
};

/// User and system CPU time of this process so far, in seconds.
pub fn cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// Has the kernel end this process with that signal when its parent ends; a program that it is replaced by keeps
/// that.
pub fn end_with_parent(signal: Signal) {
    let _ = prctl::set_pdeathsig(signal);
}

/// Prepares a measuring process, before it starts any thread: the kernel ends it when its parent ends, and timed
/// sleeps are as precise as the kernel can make them (the default may add 50 microseconds).
pub fn prepare() {
    end_with_parent(Signal::SIGKILL);
    precise();
}

/// The second half of it alone.
pub fn precise() {
    let _ = prctl::set_timerslack(1);
}

/// Keeps this process on the `n`th of the CPUs that it may use, counted from 0 and round again.
pub fn pin(n: usize) {
    let me = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(me) else { return };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    let mut only = CpuSet::new();
    if !cpus.is_empty() && only.set(cpus[n % cpus.len()]).is_ok() {
        let _ = sched_setaffinity(me, &only);
    }
}

/// Nanoseconds since the process chose its origin.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts at zero.
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
