//! Attach and unattach of real descriptors: cases 15 to 34.

use super::*;
use peyk::kcm::{AttachError, Cause, Config, Event, Mux, UnattachError};
use socket2::{Domain, Socket, Type};
use std::os::fd::OwnedFd;

fn refused(mux: &Mux, fd: impl Into<OwnedFd>) -> bool {
    matches!(mux.attach(TcpStream::from(fd.into()), frames()), Err(AttachError::Unsupported(_)))
}

#[test]
fn case_015_021__attach_established_with_bytes_queued() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    write_all(&far, &msg(b"before"));
    mux.attach(near, frames()).unwrap();
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"before");
}

#[test]
fn case_016__attach_while_connecting() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let connecting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    connecting.set_nonblocking(true).unwrap();
    let _ = connecting.connect(&listener.local_addr().unwrap().into());
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    mux.attach(connecting.into(), frames()).unwrap();
    peyk::block_on(socket.send(msg(b"hello"))).unwrap();
    let (far, _) = listener.accept().unwrap();
    assert_eq!(read_msg(&far).unwrap(), b"hello");
}

#[test]
fn case_017__what_is_no_tcp_connection_is_refused() {
    let (mux, _socket) = Mux::open(Config::default()).unwrap();
    assert!(refused(&mux, TcpListener::bind(loopback()).unwrap()));
    assert!(refused(&mux, Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()));
    assert!(refused(&mux, std::net::UdpSocket::bind(loopback()).unwrap()));
    assert!(refused(&mux, std::os::unix::net::UnixStream::pair().unwrap().0));
    assert!(mux.psocks().is_empty());
}

#[test]
fn case_018__the_same_connection_twice() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (other, _other_socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    let again = near.try_clone().unwrap();
    mux.attach(near, frames()).unwrap();
    for mux in [&mux, &other] {
        let tried = mux.attach(again.try_clone().unwrap(), frames());
        assert!(matches!(tried, Err(AttachError::Already)));
    }
    write_all(&far, &msg(b"unharmed"));
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"unharmed");
}

#[test]
fn case_022__attach_while_bytes_arrive() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    for round in 0..200u32 {
        let (near, far) = pair();
        let writer = std::thread::spawn(move || {
            for i in 0..10u32 {
                write_all(&far, &msg(&(round * 10 + i).to_be_bytes()));
            }
            far
        });
        let psock = mux.attach(near, frames()).unwrap();
        for i in 0..10u32 {
            let message = socket.recv_timeout(PATIENCE).unwrap();
            assert_eq!(message[4..], (round * 10 + i).to_be_bytes());
        }
        writer.join().unwrap();
        let _ = mux.unattach(psock);
    }
}

#[test]
fn case_026_029__unattach_gives_the_stream_back() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    let psock = mux.attach(near, frames()).unwrap();
    write_all(&far, &msg(b"whole"));
    write_all(&far, &msg(b"half a message")[..9]);
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"whole");
    until("the half has been read", || mux.memory_used() == 9);
    let (off, stream) = mux.unattach(psock).unwrap();
    let stream = stream.expect("it was TCP");
    assert_eq!(&off.buffered[..], &msg(b"half a message")[..9]);
    // An ordinary, blocking socket again, at exactly the next byte.
    write_all(&far, b"next");
    let mut four = [0; 4];
    (&stream).read_exact(&mut four).unwrap();
    assert_eq!(&four, b"next");
    // Case 33: another mux may have it.
    let (other, inbox) = Mux::open(Config::default()).unwrap();
    other.attach(stream, frames()).unwrap();
    write_all(&far, &msg(b"again"));
    assert_eq!(&inbox.recv_timeout(PATIENCE).unwrap()[4..], b"again");
    assert!(matches!(mux.unattach(psock), Err(UnattachError::Unknown)));
}

#[test]
fn case_034__a_peer_that_goes_is_reported_and_freed() {
    let (mux, _socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    let psock = mux.attach(near, frames()).unwrap();
    write_all(&far, b"\0\0\0\x09abc");
    drop(far);
    let event = peyk::block_on(mux.next_event()).unwrap();
    let cause = Cause::Truncated { have: 7, need: Some(13) };
    assert_eq!(event, Event::PsockDown { psock, cause, tx_unsent: 0 });
    until("it is freed", || mux.psocks().is_empty());
}

#[test]
fn case_097__a_framer_that_panics_ends_its_connection_only() {
    #[derive(Clone)]
    struct Panics;
    impl Framer for Panics {
        fn frame(&mut self, bytes: &[u8], _: &mut peyk::kcm::framer::Resume) -> peyk::kcm::framer::Verdict {
            panic!("{} bytes frighten me", bytes.len())
        }
        fn spread(&self) -> Spread {
            Spread::Any
        }
        fn fresh(&self) -> Box<dyn Framer> {
            Box::new(self.clone())
        }
    }
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let ((bad, far_bad), (good, far_good)) = (pair(), pair());
    mux.attach(bad, Box::new(Panics)).unwrap();
    mux.attach(good, frames()).unwrap();
    write_all(&far_bad, b"x");
    let Some(Event::PsockDown { cause, .. }) = peyk::block_on(mux.next_event()) else { panic!("it is down") };
    assert_eq!(cause.code(), peyk_kcm::error::Code::FAULT);
    write_all(&far_good, &msg(b"fine"));
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"fine");
}
