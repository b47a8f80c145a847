//! The plan keeps its promises about order, and makes the trains one expects.

use super::*;
use peyk_sansio::Prng;
use std::sync::LazyLock;

const LIMITS: Limits = Limits { packets: 64, bytes: 65507, short: Short { bytes: 0, packets: 0 } };

/// Where packets go.
static REMOTES: LazyLock<Vec<SocketAddr>> =
    LazyLock::new(|| (0..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect());

fn item(to: u16, priority: u8, len: usize, key: u64) -> Item<'static> {
    let remote = &REMOTES[usize::from(to)];
    Item { local: 0, remote, priority, control: false, len, key }
}

/// The trains of a burst, as indices of its packets.
fn plan_by(planner: &mut Planner, items: &[Item], limits: Limits) -> Vec<Vec<u16>> {
    let mut trains: Vec<Vec<u16>> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let train = planner.place(item, limits);
        if train == trains.len() {
            trains.push(Vec::new());
        }
        trains[train].push(i as u16);
    }
    planner.join_tails(|from, to| {
        let mut tail = std::mem::take(&mut trains[from]);
        trains[to].append(&mut tail);
    });
    planner.clear();
    trains.retain(|train| !train.is_empty());
    trains
}

fn plan(items: &[Item]) -> Vec<Vec<u16>> {
    plan_by(&mut Planner::default(), items, LIMITS)
}

#[test]
fn plan__one_message_is_one_train() {
    let mut items = vec![item(1, 0, 1400, 7); 5];
    items.push(item(1, 0, 300, 7));
    assert_eq!(plan(&items), [[0, 1, 2, 3, 4, 5]]);
}

#[test]
fn plan__peers_in_turn_get_a_train_each() {
    let items: Vec<_> = (0..6).map(|i| item(i % 2, 3, 100, u64::from(i))).collect();
    assert_eq!(plan(&items), [[0, 2, 4], [1, 3, 5]]);
}

#[test]
fn plan__full_packets_pass_the_tails_of_other_messages() {
    let items = [
        item(1, 0, 1400, 1),
        item(1, 0, 200, 1),
        item(1, 0, 1400, 2),
        item(1, 0, 1400, 2),
        item(1, 0, 90, 2),
    ];
    assert_eq!(plan(&items), [vec![0, 2, 3, 1], vec![4]]);
}

#[test]
fn plan__small_packets_do_not_wait_for_long_trains() {
    let items = [item(1, 0, 90, 1), item(1, 0, 1400, 2), item(1, 0, 1400, 2)];
    assert_eq!(plan(&items), [vec![0], vec![1, 2]]);
}

#[test]
fn plan__respects_limits() {
    let items = vec![item(1, 0, 9000, 1); 20];
    assert_eq!(plan(&items).iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
    let items = vec![item(1, 0, 100, 1); 130];
    assert_eq!(plan(&items).iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 2]);
}

/// Random bursts: everything is sent once, priorities and messages keep their order, control
/// stays in front, trains are well-formed.
#[test]
fn plan__keeps_order_where_it_must() {
    let mut rng = Prng::new(1);
    let mut planner = Planner::default();
    for _ in 0..2000 {
        let n = 1 + rng.below(120) as usize;
        let mut items: Vec<Item> = (0..n)
            .map(|_| {
                let len = [60, 100, 156, 1400, 9000][rng.below(5) as usize];
                let mut it = item(rng.below(3) as u16, rng.below(3) as u8, len, rng.below(10));
                it.control = rng.chance(0.1);
                it
            })
            .collect();
        items.sort_by_key(|it| std::cmp::Reverse((it.control, it.priority)));
        let trains = plan_by(&mut planner, &items, LIMITS);
        let order: Vec<u16> = trains.concat();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..n as u16).collect::<Vec<_>>(), "each packet once");
        for pair in order.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|i| items[usize::from(i)]);
            assert!(
                (a.control, a.priority) >= (b.control, b.priority),
                "priority and control keep their order"
            );
        }
        for (at, &i) in order.iter().enumerate() {
            let overtaken = order[..at]
                .iter()
                .filter(|&&j| j > i && items[usize::from(j)].key == items[usize::from(i)].key);
            let key = items[usize::from(i)].key;
            assert_eq!(overtaken.count(), 0, "message {key} keeps its order");
        }
        for train in &trains {
            let lens: Vec<usize> = train.iter().map(|&i| items[usize::from(i)].len).collect();
            let (last, rest) = lens.split_last().unwrap();
            assert!(rest.iter().all(|l| *l == lens[0]) && *last <= lens[0]);
            assert!(lens.len() <= 64 && lens.iter().sum::<usize>() <= 65507);
            let firsts = items[usize::from(train[0])];
            assert!(train.iter().all(|&i| items[usize::from(i)].remote == firsts.remote));
        }
    }
}

#[test]
fn plan__short_packets_make_short_trains() {
    let limits = Limits { short: Short { bytes: 512, packets: 32 }, ..LIMITS };
    let lengths = |len: usize| {
        let items: Vec<Item> = (0..64).map(|key| item(1, 7, len, key)).collect();
        plan_by(&mut Planner::default(), &items, limits).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(156), [32, 32]);
    assert_eq!(lengths(512), [32, 32]);
    assert_eq!(lengths(513), [64]);
}

#[test]
fn place_anew__starts_another_train() {
    let mut planner = Planner::default();
    let item = item(1, 0, 1400, 1);
    assert_eq!([planner.place(&item, LIMITS), planner.place(&item, LIMITS)], [0, 0]);
    planner.place_anew(&item, LIMITS);
    assert_eq!(planner.place(&item, LIMITS), 1);
    assert_eq!(planner.packets(), 3);
}

#[test]
fn is_one_full__only_of_a_single_train() {
    let mut planner = Planner::default();
    for key in 0..64 {
        assert!(!planner.is_one_full());
        planner.place(&item(1, 0, 100, key), LIMITS);
    }
    assert!(planner.is_one_full());
    planner.place(&item(1, 0, 100, 64), LIMITS);
    assert!(!planner.is_one_full());
}
