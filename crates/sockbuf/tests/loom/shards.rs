//! What shards and their watchers share, under the model checker: L6 to L8 of the plan (a snapshot against its
//! readers; a socket that two shards serve, against its reader and its end; rings between shards, both full).
//! The rings, marks and lists are those that `crates/stack` uses, in the same order.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use peyk_sockbuf::doorbell::Doorbell;
use peyk_sockbuf::mutant::Site;
use peyk_sockbuf::ready::ReadySet;
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::snapshot::snapshot;
use peyk_sockbuf::spsc;
use peyk_sockbuf::waiters::WaitList;

use super::{check, join, sleep_until};

#[test]
fn l6_snapshot_is_of_one_moment() {
    let sites = [Site::SnapshotOpen, Site::SnapshotClose, Site::SnapshotCheck];
    check("shards::l6_snapshot_is_of_one_moment", &sites, || {
        let (mut publisher, view) = snapshot(2);
        let reader = thread::spawn(move || {
            let (mut seen, mut last) = (Vec::new(), 0);
            for _ in 0..2 {
                if let Some(version) = view.read(&mut seen) {
                    assert_eq!(seen, [version, 10 * version], "numbers of another moment");
                    assert!(version >= last, "an older moment after a newer one");
                    last = version;
                }
            }
        });
        publisher.publish(&[1, 10]);
        publisher.publish(&[2, 20]);
        join(reader);
    });
}

/// A socket as its reader has it: a queue and a mark for each shard, one list of waiters, one end.
struct Front {
    queues: [Ring<usize>; 2],
    ready: ReadySet,
    waiters: WaitList,
    end: AtomicBool,
}

impl Front {
    fn deliver(&self, shard: usize, value: usize) {
        self.queues[shard].push(value).expect("there is room");
        self.ready.mark(shard);
        self.waiters.notify_one();
    }

    fn take(&self) -> Option<usize> {
        while let Some(shard) = self.ready.next(0) {
            if let Some(value) = self.queues[shard].pop() {
                return Some(value);
            }
            self.ready.found_empty(shard, || !self.queues[shard].is_empty());
        }
        None
    }
}

fn front() -> Arc<Front> {
    Arc::new(Front {
        queues: [Ring::with_capacity(2), Ring::with_capacity(2)],
        ready: ReadySet::new(2),
        waiters: WaitList::new(),
        end: AtomicBool::new(false),
    })
}

#[test]
fn l7_two_shards_deliver_to_one_reader() {
    let sites = [Site::WaitersJoin, Site::WaitersNotify];
    check("shards::l7_two_shards_deliver_to_one_reader", &sites, || {
        let front = front();
        let reader = {
            let front = front.clone();
            thread::spawn(move || {
                let get = || loom::future::block_on(front.waiters.until(|| front.take()));
                assert_eq!(get() + get(), 3, "one of each shard");
            })
        };
        let other = {
            let front = front.clone();
            thread::spawn(move || front.deliver(1, 2))
        };
        front.deliver(0, 1);
        join(other);
        join(reader);
    });
}

#[test]
fn l7_the_end_of_a_socket_comes_after_what_its_shard_delivered() {
    let sites = [Site::WaitersJoin, Site::WaitersNotify];
    check("shards::l7_the_end_of_a_socket_comes_after_what_its_shard_delivered", &sites, || {
        let front = front();
        let reader = {
            let front = front.clone();
            thread::spawn(move || {
                // As a socket's `recv`: the end is said after the last item was put in, so look once more.
                let look = || match front.take() {
                    Some(value) => Some(Some(value)),
                    None => front.end.load(Ordering::Acquire).then(|| front.take()),
                };
                let mut got = 0;
                while let Some(value) = loom::future::block_on(front.waiters.until(look)) {
                    got += value;
                }
                assert_eq!(got, 1, "delivered before the end");
            })
        };
        front.deliver(1, 1);
        front.end.store(true, Ordering::Release);
        front.waiters.notify_all();
        join(reader);
    });
}

/// What two shards know of each other: the bell of the one that sleeps, and how many items found room on the
/// way to each, plus one once there are no more.
#[derive(Default)]
struct Between {
    bell: Doorbell,
    given: [AtomicUsize; 2],
}

/// Gives the other shard three, of which a full ring loses what does not fit: nobody waits.
fn give(to: &mut spsc::Producer<Box<usize>>, given: &AtomicUsize) -> usize {
    let accepted = (0..3).filter(|&value| to.push(Box::new(value)).is_ok()).count();
    given.store(accepted + 1, Ordering::Release);
    accepted
}

#[test]
fn l8_rings_between_shards_both_full() {
    let sites = [Site::SpscPublish, Site::DoorbellSleeper, Site::DoorbellWaker];
    check("shards::l8_rings_between_shards_both_full", &sites, || {
        let ((mut to_sleeper, mut from_other), (mut to_other, mut from_sleeper)) =
            (spsc::ring(2), spsc::ring(2));
        let between = Arc::new(Between::default());
        let sleeper = {
            let between = between.clone();
            thread::spawn(move || {
                let given = || between.given[0].load(Ordering::Acquire);
                let sent = give(&mut to_other, &between.given[1]);
                let mut taken = 0;
                loop {
                    taken += std::iter::from_fn(|| from_other.pop()).count();
                    if given() == taken + 1 {
                        return (sent, taken);
                    }
                    sleep_until(&between.bell, || given() != 0 || !from_other.is_empty());
                }
            })
        };
        let sent = give(&mut to_sleeper, &between.given[0]);
        between.bell.ring_if_asleep(&|| sleeper.thread().unpark());
        let (others, taken) = join(sleeper);
        let left = std::iter::from_fn(|| from_sleeper.pop()).count();
        assert_eq!((taken, left), (sent, others), "what found room arrives, once");
        assert!(sent >= 2 && others == 2, "a ring of two takes two");
    });
}
