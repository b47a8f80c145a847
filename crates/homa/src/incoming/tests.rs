//! Gaps and trimming of a message being received.

use peyk_sockbuf::Pool;

use super::*;

const MANY: usize = 1000;

fn message(length: u32) -> MessageIn {
    let mut pool = Pool::new(4);
    let mut message = MessageIn::default();
    message.start(length, length, pool.alloc(length as usize));
    message
}

fn body(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn gaps(message: &MessageIn) -> Vec<(u32, u32)> {
    message.gaps().iter().map(|g| (g.start, g.end)).collect()
}

#[test]
fn in_order_needs_no_gaps() {
    let (mut m, body) = (message(3000), body(3000));
    assert_eq!(m.insert(0, &body[..1424], MANY), Insert::New);
    assert_eq!(m.insert(1424, &body[1424..2848], MANY), Insert::New);
    assert!(gaps(&m).is_empty() && !m.is_complete());
    assert_eq!(m.insert(2848, &body[2848..], MANY), Insert::New);
    assert!(m.is_complete());
    assert_eq!(m.take().to_vec(), body);
}

#[test]
fn the_gap_of_the_documented_example_is_filled_by_an_overlapping_packet() {
    // Received [0,1424) and [2848,4272): HomaModule would reject [1000,2848).
    let (mut m, body) = (message(5000), body(5000));
    m.insert(0, &body[..1424], MANY);
    m.insert(2848, &body[2848..4272], MANY);
    assert_eq!(gaps(&m), [(1424, 2848)]);
    assert_eq!(m.insert(1000, &body[1000..2848], MANY), Insert::Trimmed);
    assert!(gaps(&m).is_empty());
    assert_eq!(m.received, 4272);
}

#[test]
fn head_tail_and_middle_of_a_gap() {
    let (mut m, body) = (message(1000), body(1000));
    m.insert(900, &body[900..], MANY);
    assert_eq!(gaps(&m), [(0, 900)]);
    assert_eq!(m.insert(0, &body[..100], MANY), Insert::New);
    assert_eq!(m.insert(800, &body[800..900], MANY), Insert::New);
    assert_eq!(m.insert(400, &body[400..500], MANY), Insert::New);
    assert_eq!(gaps(&m), [(100, 400), (500, 800)]);
    assert_eq!(m.insert(0, &body, MANY), Insert::Trimmed);
    assert!(m.is_complete());
    assert_eq!(m.take().to_vec(), body);
}

#[test]
fn duplicates_and_empty_packets_change_nothing() {
    let (mut m, body) = (message(1000), body(1000));
    m.insert(0, &body[..500], MANY);
    assert_eq!(m.insert(0, &body[..500], MANY), Insert::Duplicate);
    assert_eq!(m.insert(100, &body[100..200], MANY), Insert::Duplicate);
    assert_eq!(m.insert(500, &[], MANY), Insert::Duplicate);
    assert_eq!((m.received, m.recv_end), (500, 500));
}

#[test]
fn bytes_that_are_here_are_not_overwritten() {
    let (mut m, body) = (message(300), body(300));
    m.insert(100, &body[100..200], MANY);
    assert_eq!(m.insert(0, &[0xee; 300], MANY), Insert::Trimmed);
    let got = m.take().to_vec();
    assert_eq!(&got[100..200], &body[100..200]);
    assert_eq!(&got[..100], &[0xee; 100]);
}

#[test]
fn the_number_of_gaps_is_limited() {
    let (mut m, body) = (message(1000), body(1000));
    assert_eq!(m.insert(100, &body[100..110], 2), Insert::New);
    assert_eq!(m.insert(200, &body[200..210], 2), Insert::New);
    assert_eq!(m.insert(300, &body[300..310], 2), Insert::TooManyGaps);
    assert_eq!(m.insert(50, &body[50..60], 2), Insert::TooManyGaps);
    assert_eq!(m.insert(0, &body[..100], 2), Insert::New);
    assert_eq!(gaps(&m), [(110, 200)]);
}

#[test]
fn random_arrivals_agree_with_a_map_of_bytes() {
    let mut rng = peyk_sansio::Prng::new(7);
    for _ in 0..200 {
        let length = 1 + rng.below(5000) as u32;
        let (mut m, body) = (message(length), body(length));
        let mut have = vec![false; length as usize];
        while !m.is_complete() {
            let start = rng.below(u64::from(length)) as usize;
            let end = (start + rng.below(900) as usize).min(length as usize);
            let outcome = m.insert(start as u32, &body[start..end], MANY);
            let new = have[start..end].iter().filter(|&&b| !b).count();
            have[start..end].fill(true);
            let expected = match (new, end - start) {
                (0, _) => Insert::Duplicate,
                (new, all) if new == all => Insert::New,
                _ => Insert::Trimmed,
            };
            assert_eq!(outcome, expected);
            let known = have.iter().filter(|&&b| b).count();
            assert_eq!(m.received as usize, known);
            let missing: u32 = m.gaps().iter().map(|g| g.end - g.start).sum();
            assert_eq!(m.recv_end, m.received + missing);
            assert!(m.gaps().windows(2).all(|w| w[0].end < w[1].start));
        }
        assert_eq!(m.take().to_vec(), body);
    }
}
