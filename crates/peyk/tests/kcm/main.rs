//! KCM over real connections: the cases of its conformance list that need descriptors, threads or the
//! network, by number, and real servers of real protocols.
#![allow(non_snake_case)]

mod attach;
mod interop;
mod messages;
mod stress;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use peyk::kcm::framer::{Framer, LengthField, Spread};

/// Long enough for a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn frames() -> Box<dyn Framer> {
    Box::new(LengthField::be(0, 4).plus(4).spread_as(Spread::Any))
}

pub(crate) fn msg(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// Both ends of a connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    for end in [&one, &other] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (one, other)
}

pub(crate) fn read_msg(mut tcp: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    tcp.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    tcp.read_exact(&mut body)?;
    Ok(body)
}

pub(crate) fn write_all(mut tcp: &TcpStream, bytes: &[u8]) {
    tcp.write_all(bytes).unwrap();
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// For loops that end with what other threads do: panics when it is plain that they do not.
pub(crate) fn impatience() -> impl Fn() + Sync {
    let (start, most) = (std::time::Instant::now(), stress::rounds(6) * PATIENCE);
    move || assert!(start.elapsed() < most, "it does not end")
}

/// Sets a flag when it goes, also by a panic: no thread waits for it for ever.
pub(crate) struct Stop<'a>(pub(crate) &'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}
