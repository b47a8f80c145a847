//! Reading, writing and cutting messages.

use super::*;
use crate::Pool;

fn long(len: usize) -> (Message, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let mut pool = Pool::new(Pool::pages_for(len));
    (pool.copy_in(&bytes).expect("space"), bytes)
}

#[test]
fn chunks_are_pages_and_a_rest() {
    let (message, bytes) = long(2 * PAGE + 10);
    assert_eq!(message.chunks().map(<[u8]>::len).collect::<Vec<_>>(), [PAGE, PAGE, 10]);
    assert_eq!(message.chunks().len(), 3);
    assert_eq!(message.chunks().flatten().copied().collect::<Vec<_>>(), bytes);
    assert_eq!(message.as_slice(), None);
    assert!(matches!(message.contiguous(), Cow::Owned(copy) if copy == bytes));
}

#[test]
fn as_slice_up_to_a_page() {
    for len in [1, 63, 64, 65, PAGE - 1, PAGE] {
        let (message, bytes) = long(len);
        assert_eq!(message.as_slice(), Some(&bytes[..]));
        assert!(matches!(message.contiguous(), Cow::Borrowed(_)));
    }
}

#[test]
fn copy_to_stops_at_the_shorter() {
    let (message, bytes) = long(PAGE + 100);
    let mut short = vec![0; PAGE + 50];
    assert_eq!(message.copy_to(&mut short), PAGE + 50);
    assert_eq!(short, bytes[..PAGE + 50]);
    let mut long = vec![0; PAGE + 200];
    assert_eq!(message.copy_to(&mut long), PAGE + 100);
    assert_eq!(long[..PAGE + 100], bytes);
    assert_eq!(Vec::from(message), bytes);
}

#[test]
fn eq_compares_bytes() {
    let (message, mut bytes) = long(PAGE + 1);
    assert_eq!(message, bytes);
    assert_eq!(message, message.clone());
    assert_ne!(message, long(PAGE).0);
    bytes[PAGE] ^= 1;
    assert_ne!(message, bytes);
    assert_ne!(message, bytes[..PAGE]);
    assert_eq!(long(3).0, [0, 1, 2]);
    assert_eq!(long(3).0, &[0, 1, 2]);
}

#[test]
fn empty_holds_nothing() {
    let empty = Message::default();
    assert!(empty.is_empty() && empty.clone().as_slice() == Some(&[]) && empty.chunks().next().is_none());
    assert_eq!(empty, []);
}

#[test]
fn debug_shows_the_beginning() {
    let mut pool = Pool::new(1);
    let message = pool.copy_in(b"ping\n").expect("space");
    assert_eq!(format!("{message:?}"), r#"Message(5 bytes: b"ping\n")"#);
    assert!(format!("{:?}", long(100).0).ends_with("...)"));
}

#[test]
fn into_chunks_keeps_counts() {
    let bytes: Vec<u8> = (0..2 * PAGE + 10).map(|i| (i % 251) as u8).collect();
    let mut pool = Pool::new(4);
    let message = pool.copy_in(&bytes).expect("space");
    let chunks: Vec<Message> = message.into_chunks().collect();
    assert_eq!(pool.free_pages(), 1);
    let parts: Vec<&[u8]> = chunks.iter().filter_map(Message::as_slice).collect();
    assert_eq!(parts.concat(), bytes);
    drop(chunks);
    assert_eq!(pool.free_pages(), 4);
}

#[test]
fn write_at_in_any_order() {
    let mut pool = Pool::new(3);
    let mut buf = pool.alloc(2 * PAGE).expect("space");
    buf.write_at(PAGE - 1, &[2; 2]);
    buf.write_at(PAGE + 1, &vec![3; PAGE - 1]);
    buf.write_at(0, &vec![1; PAGE - 1]);
    buf.write_at(7, &[]);
    let bytes = buf.freeze().to_vec();
    assert_eq!(bytes, [vec![1; PAGE - 1], vec![2; 2], vec![3; PAGE - 1]].concat());
}

#[test]
#[should_panic(expected = "writing up to 11 in a message of 10 bytes")]
fn write_at_outside_panics() {
    Pool::new(1).alloc(10).expect("space").write_at(9, &[0; 2]);
}

#[test]
#[should_panic(expected = "only 9 were written")]
fn freeze_before_all_is_written_panics() {
    let mut pool = Pool::new(1);
    let mut buf = pool.alloc(10).expect("space");
    buf.write_at(0, &[0; 9]);
    buf.freeze();
}
