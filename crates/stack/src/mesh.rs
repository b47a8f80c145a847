//! Between the shards of a stack: a ring from each to each other, for packets that reached the
//! wrong one and for the little that concerns them all. Not a bus: nothing here is answered, and
//! nobody waits. A full ring loses what would go into it, as a full socket buffer does, counted.
//!
//! Packets are copied into memory of the shard that hands them over; the last drop, at the owner,
//! sends it home.

use std::net::SocketAddr;

use peyk_homa::{Path, StrayAck, steer};
use peyk_kevent::Handle;
use peyk_sockbuf::spsc::{self, Consumer, Producer};
use peyk_sockbuf::{Message, Pool};

use crate::stats::MeshStats;

/// Places in each ring.
const RING: usize = 1024;
/// Pages of 64 KiB for packets under way to other shards.
const PAGES: u32 = 128;
/// What is taken from one ring in a turn.
const BURST: usize = 256;

/// What goes from shard to shard.
pub(crate) enum Crossing {
    /// A packet, where it came from, and the address of the group whose socket got it.
    Packet { remote: SocketAddr, group: SocketAddr, data: Message },
    /// An ack for an RPC of the other shard, which came to a socket of this group.
    Ack { ack: StrayAck, group: SocketAddr },
    /// What the host tells its peers about priorities.
    Cutoffs { version: u16, table: [u32; 8] },
}

/// One shard's ends of the rings.
pub(crate) struct Mesh {
    shard: u8,
    shards: u8,
    pool: Pool,
    /// To each shard, and how it is woken; none to oneself.
    to: Vec<Option<(Producer<Crossing>, Handle)>>,
    from: Vec<Consumer<Crossing>>,
    /// Shards that were given something since they were last woken.
    given: Vec<bool>,
    /// By number of the local carriage socket: the address its group was asked for, if it is in one.
    groups: Vec<Option<SocketAddr>>,
    pub stats: MeshStats,
}

impl Mesh {
    /// The rings between shards that are woken in these ways.
    pub fn between(handles: &[Handle]) -> Vec<Mesh> {
        let count = handles.len();
        let mut meshes: Vec<Mesh> = (0..count)
            .map(|shard| Mesh {
                shard: shard as u8,
                shards: count as u8,
                pool: Pool::new(PAGES),
                to: Vec::new(),
                from: Vec::new(),
                given: vec![false; count],
                groups: Vec::new(),
                stats: MeshStats::default(),
            })
            .collect();
        for from in 0..count {
            for (to, handle) in handles.iter().enumerate() {
                if from == to {
                    meshes[from].to.push(None);
                    continue;
                }
                let (producer, consumer) = spsc::ring(RING);
                meshes[from].to.push(Some((producer, handle.clone())));
                meshes[to].from.push(consumer);
            }
        }
        meshes
    }

    /// The carriage socket belongs to the group at this address.
    pub fn join(&mut self, local: u16, group: SocketAddr) {
        let place = usize::from(local);
        if self.groups.len() <= place {
            self.groups.resize(place + 1, None);
        }
        self.groups[place] = Some(group);
    }

    /// The carriage socket was closed.
    pub fn leave(&mut self, local: u16) {
        if let Some(group) = self.groups.get_mut(usize::from(local)) {
            *group = None;
        }
    }

    /// The number of our socket of the group at this address.
    pub fn local(&self, group: SocketAddr) -> Option<u16> {
        self.groups.iter().position(|&g| g == Some(group)).map(|place| place as u16)
    }

    /// Hands a packet over if it belongs to another shard; true if so.
    #[inline]
    pub fn hand_over(&mut self, path: &Path, data: &[u8]) -> bool {
        let Some(&Some(group)) = self.groups.get(usize::from(path.local)) else { return false };
        let owner = steer::shard_of_packet(data, self.shards);
        if owner == self.shard {
            return false;
        }
        self.cross(owner, path.remote, group, data);
        true
    }

    #[cold]
    fn cross(&mut self, owner: u8, remote: SocketAddr, group: SocketAddr, data: &[u8]) {
        match self.pool.copy_in(data) {
            Some(data) => self.push(owner, Crossing::Packet { remote, group, data }),
            None => self.stats.dropped += 1,
        }
    }

    /// Hands an ack over.
    pub fn hand_ack(&mut self, ack: StrayAck) {
        if let Some(&Some(group)) = self.groups.get(usize::from(ack.path.local)) {
            self.push(ack.shard, Crossing::Ack { ack, group });
        }
    }

    /// Tells all others the table of priorities.
    pub fn tell_cutoffs(&mut self, version: u16, table: [u32; 8]) {
        for shard in 0..self.shards {
            if shard != self.shard {
                self.push(shard, Crossing::Cutoffs { version, table });
            }
        }
    }

    fn push(&mut self, to: u8, crossing: Crossing) {
        let Some(Some((ring, _))) = self.to.get_mut(usize::from(to)) else { return };
        if ring.push(crossing).is_ok() {
            self.stats.handed_over += 1;
            self.given[usize::from(to)] = true;
        } else {
            self.stats.dropped += 1;
        }
    }

    /// Wakes the shards that were given something, if they sleep.
    pub fn wake(&mut self) {
        for (given, to) in self.given.iter_mut().zip(&self.to) {
            if std::mem::take(given)
                && let Some((_, handle)) = to
            {
                handle.wake();
            }
        }
    }

    /// Takes what others handed over; true if there may be more.
    pub fn take(&mut self, mut sink: impl FnMut(&Mesh, Crossing)) -> bool {
        let mut more = false;
        for at in 0..self.from.len() {
            for taken in 0.. {
                if taken == BURST {
                    more = true;
                    break;
                }
                let Some(crossing) = self.from[at].pop() else { break };
                self.stats.taken_over += 1;
                sink(self, crossing);
            }
        }
        more
    }
}

/// Nanoseconds that one packet of `bytes` bytes costs on its way from a shard to another, both on
/// CPUs of their own and awake: looked at, copied, handed over, taken over, and its memory sent
/// home. The calling thread is the second shard. For benchmarks.
///
/// # Errors
/// No completion queue can be made.
pub fn measure_hand_over(cpus: [usize; 2], packets: u32, bytes: usize) -> std::io::Result<f64> {
    use std::sync::atomic::{AtomicBool, Ordering};
    let queue = |_| peyk_kevent::Queue::new(peyk_kevent::Config::default()).map_err(std::io::Error::other);
    let queues = [queue(0)?, queue(1)?];
    let handles = [queues[0].handle(), queues[1].handle()];
    let mut meshes = Mesh::between(&handles).into_iter();
    let (Some(mut first), Some(mut second)) = (meshes.next(), meshes.next()) else { return Ok(0.0) };
    let group = SocketAddr::from(([127, 0, 0, 1], 1));
    first.join(0, group);
    let path = Path { remote: group, local: 0 };
    let mut data = vec![0u8; bytes.max(28)];
    // From a server to the client on shard 1.
    (data[24], data[27]) = (1, 1);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not pinned if that is not allowed: the figure is then what it is.
            let _ = crate::sys::pin_to_cpu(cpus[0]);
            while !is_done.load(Ordering::Relaxed) {
                let before = first.stats.dropped;
                for _ in 0..32 {
                    first.hand_over(&path, &data);
                }
                first.wake();
                if first.stats.dropped > before {
                    std::hint::spin_loop();
                }
            }
        });
        let _ = crate::sys::pin_to_cpu(cpus[1]);
        let (mut taken, mut sum) = (0u32, 0u64);
        let mut start = std::time::Instant::now();
        let warm = packets / 10;
        let mut is_warm = false;
        while taken < packets + warm {
            second.take(|_, crossing| {
                if let Crossing::Packet { data, .. } = crossing {
                    sum += u64::from(data.as_slice().map_or(0, |bytes| bytes[24]));
                    taken += 1;
                }
            });
            if !is_warm && taken >= warm {
                (is_warm, taken, start) = (true, warm, std::time::Instant::now());
            }
        }
        let elapsed = start.elapsed();
        is_done.store(true, Ordering::Relaxed);
        std::hint::black_box(sum);
        Ok(elapsed.as_nanos() as f64 / f64::from(taken - warm))
    })
}
