//! Payloads against byte vectors.

use proptest::prelude::*;

use super::*;
use crate::{PAGE, Pool};

#[test]
fn size_stays_112_bytes() {
    assert_eq!(size_of::<Payload>(), 112);
}

#[test]
fn from_everything() {
    let long = vec![5u8; 1000];
    assert_eq!(Payload::from(long.clone()), long);
    assert_eq!(Payload::from(long.clone().into_boxed_slice()), long);
    assert_eq!(Payload::from(Bytes::from(long.clone())), long);
    assert_eq!(Payload::copy_from(&long), long);
    assert_eq!(Payload::from(b"abc"), &b"abc"[..]);
    assert_eq!(Payload::from("abc"), &b"abc"[..]);
    assert_eq!(Payload::from(String::from("abc")), &b"abc"[..]);
    assert_eq!(Payload::from(&b"abc"[..]), &b"abc"[..]);
    assert_eq!(Payload::default(), &b""[..]);
    assert_eq!(Payload::default().chunks().count(), 0);
    assert_eq!(Payload::from(Bytes::new()).chunks().count(), 0);
}

#[test]
fn from_message_keeps_long_pages_and_frees_short_ones() {
    let mut pool = Pool::new(4);
    let short = Payload::from(pool.copy_in(&[1; INLINE]).expect("space"));
    assert_eq!(pool.free_pages(), 4);
    let contiguous = Payload::from(pool.copy_in(&[2; INLINE + 1]).expect("space"));
    assert_eq!(pool.free_pages(), 3);
    let long = Payload::from(pool.copy_in(&[3; 2 * PAGE + 1]).expect("space"));
    assert_eq!(pool.free_pages(), 1);
    assert_eq!(short, vec![1; INLINE]);
    assert_eq!(contiguous.as_slice(), Some(&[2; INLINE + 1][..]));
    assert_eq!(long, vec![3; 2 * PAGE + 1]);
    assert_eq!(long.chunks().count(), 3);
    let slice = long.slice(PAGE..PAGE + 1);
    drop((contiguous, long));
    assert_eq!(pool.free_pages(), 3);
    assert_eq!(slice, [3][..]);
    drop(slice);
    assert_eq!(pool.free_pages(), 4);
}

#[test]
#[should_panic(expected = "out of range")]
fn slice_outside_inline_panics() {
    let _ = Payload::from("abc").slice(1..4);
}

#[test]
#[should_panic(expected = "slicing 0..1001 out of 1000")]
fn slice_outside_chain_panics() {
    let chain: Payload = [Bytes::from(vec![0; 500]), Bytes::from(vec![0; 500])].into_iter().collect();
    let _ = chain.slice(0..1001);
}

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let len = prop_oneof![0usize..8, 0usize..200];
    prop::collection::vec(len.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len)), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn payload_agrees_with_a_vector(parts in parts(), from: prop::sample::Index, to: prop::sample::Index) {
        let payload: Payload = parts.iter().cloned().map(Bytes::from).collect();
        let bytes = parts.concat();
        prop_assert_eq!(payload.len(), bytes.len());
        prop_assert_eq!(payload.is_empty(), bytes.is_empty());
        prop_assert_eq!(payload.chunks().collect::<Vec<_>>().concat(), &bytes[..]);
        prop_assert!(payload.chunks().all(|chunk| !chunk.is_empty()));
        prop_assert_eq!(&payload.to_vec(), &bytes);
        let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let slice = payload.slice(from..to);
        prop_assert_eq!(&slice, &bytes[from..to].to_vec());
        prop_assert!(slice.as_slice().is_none_or(|slice| slice == &bytes[from..to]));
        prop_assert_eq!(&slice, &Payload::copy_from(&bytes[from..to]));
        let mut copy = vec![0; slice.len() / 2];
        prop_assert_eq!(slice.copy_to(&mut copy), copy.len());
        prop_assert_eq!(&copy[..], &bytes[from..from + copy.len()]);
    }
}
