//! Attach and unattach of real descriptors: cases 15 to 34.

use super::*;
use peyk::kcm::{AttachError, Cause, Config, Event, Mux, UnattachError};
use socket2::{Domain, Socket, Type};
use std::os::fd::OwnedFd;

fn refused(mux: &Mux, fd: impl Into<OwnedFd>) -> bool {
    matches!(mux.attach(TcpStream::from(fd.into()), frames()), Err(AttachError::Unsupported(_)))
}

#[test]
fn case_015__attach_established() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    write_all(&far, &msg(b"in"));
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"in");
    peyk::block_on(socket.send(msg(b"out"))).unwrap();
    assert_eq!(read_msg(&far).unwrap(), b"out");
}

#[test]
fn case_021__bytes_queued_before_attach() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    write_all(&far, &[msg(b"before"), msg(b"and half")[..7].to_vec()].concat());
    mux.attach(near, frames()).unwrap();
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"before");
    write_all(&far, &msg(b"and half")[7..]);
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"and half");
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

/// A stream inside the messages of another mux: a KCM socket below KCM.
struct Tunnel {
    socket: std::sync::Arc<peyk::kcm::Socket>,
    /// Readable when a message came.
    bell: std::os::unix::net::UnixStream,
    rest: std::sync::Mutex<Vec<u8>>,
}

impl Tunnel {
    /// Over this socket, whose messages a thread announces until the mux is closed.
    fn new(socket: peyk::kcm::Socket) -> Tunnel {
        let (bell, mut rope) = std::os::unix::net::UnixStream::pair().unwrap();
        bell.set_nonblocking(true).unwrap();
        let socket = std::sync::Arc::new(socket);
        let watched = std::sync::Arc::downgrade(&socket);
        std::thread::spawn(move || {
            while watched.upgrade().is_some() {
                std::thread::sleep(Duration::from_millis(1));
                use std::io::Write;
                let _ = rope.write(&[1]);
            }
        });
        Tunnel { socket, bell, rest: Default::default() }
    }
}

impl peyk::kcm::Stream for Tunnel {
    fn try_read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        while (&self.bell).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        let mut rest = self.rest.lock().unwrap();
        if rest.is_empty() {
            let message = self.socket.try_recv().map_err(|_| std::io::ErrorKind::WouldBlock)?;
            rest.extend_from_slice(&message[4..]);
        }
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        rest.drain(..count);
        Ok(count)
    }

    fn try_write(&self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let flags = peyk::kcm::SendFlags { end: true, ..Default::default() };
        match self.socket.try_send(msg(&bytes), flags) {
            Ok(_) => Ok(bytes.len()),
            Err(_) => Err(std::io::ErrorKind::WouldBlock.into()),
        }
    }

    fn short_read_is_all(&self) -> bool {
        false
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.bell)
    }

    fn shut_down(&self) {}
}

#[test]
fn case_019__a_kcm_socket_as_lower_stream() {
    let (near, far) = pair();
    let (lower, lower_socket) = Mux::open(Config::default()).unwrap();
    lower.attach(near, frames()).unwrap();
    let (upper, socket) = Mux::open(Config::default()).unwrap();
    upper.attach_stream(Box::new(Tunnel::new(lower_socket)), frames(), Default::default(), false).unwrap();
    for i in 0..200u32 {
        // A message of the upper mux in two of the lower, and back in one.
        let inner = msg(&i.to_be_bytes());
        write_all(&far, &[msg(&inner[..3]), msg(&inner[3..])].concat());
        let message = socket.recv_timeout(PATIENCE).unwrap();
        assert_eq!(message[4..], i.to_be_bytes());
        peyk::block_on(socket.reply(&message, message.bytes().clone())).unwrap();
        assert_eq!(read_msg(&far).unwrap(), inner);
    }
    // The tunnel goes with the upper mux, and the lower mux with the tunnel's socket.
    drop(socket);
    assert_eq!((&far).read(&mut [0; 1]).unwrap(), 0);

    // Below its own mux, too, it waits for nobody, in use or in the end: a message is wrapped again and again
    // until it is too long.
    let (mux, socket) = Mux::open(Config { max_message: 1000, ..Config::default() }).unwrap();
    let inside = socket.try_clone().unwrap();
    let psock =
        mux.attach_stream(Box::new(Tunnel::new(inside)), frames(), Default::default(), false).unwrap();
    peyk::block_on(socket.send(msg(b"round and round"))).unwrap();
    let _ = socket.recv_timeout(Duration::from_millis(20));
    assert!(mux.unattach(psock).is_ok());
    drop(socket);
}

#[test]
fn case_032__unattach_inside_a_parser_or_handler() {
    use std::sync::{Arc, Mutex};
    type Shared = Arc<Mutex<Option<(Mux, peyk::kcm::PsockId)>>>;
    /// Asks for its own connection back at each look.
    #[derive(Clone)]
    struct Leaves(Shared, Arc<Mutex<Vec<bool>>>);
    impl Framer for Leaves {
        fn frame(&mut self, bytes: &[u8], _: &mut peyk::kcm::framer::Resume) -> peyk::kcm::framer::Verdict {
            if let Some((mux, psock)) = &*self.0.lock().unwrap() {
                let is_refused = matches!(mux.unattach(*psock), Err(UnattachError::Already));
                self.1.lock().unwrap().push(is_refused);
            }
            peyk::kcm::framer::Verdict::len(bytes.len() as u64)
        }
        fn spread(&self) -> Spread {
            Spread::Any
        }
        fn fresh(&self) -> Box<dyn Framer> {
            Box::new(self.clone())
        }
    }
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    let (place, seen) = (Shared::default(), Arc::default());
    let psock = mux.attach(near, Box::new(Leaves(place.clone(), Arc::clone(&seen)))).unwrap();
    *place.lock().unwrap() = Some((mux.clone(), psock));
    write_all(&far, b"x");
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[..], b"x");
    assert_eq!(*seen.lock().unwrap(), [true]);
    // After the parser has returned, nothing is in the way.
    *place.lock().unwrap() = None;
    assert!(mux.unattach(psock).unwrap().1.is_some());

    // A framer that enters its mux in another way ends its connection, and nothing else.
    let (near, far) = pair();
    struct Enters(Mux);
    impl Framer for Enters {
        fn frame(&mut self, _: &[u8], _: &mut peyk::kcm::framer::Resume) -> peyk::kcm::framer::Verdict {
            peyk::kcm::framer::Verdict::len(self.0.psocks().len() as u64)
        }
        fn spread(&self) -> Spread {
            Spread::Any
        }
        fn fresh(&self) -> Box<dyn Framer> {
            Box::new(Enters(self.0.clone()))
        }
    }
    let psock = mux.attach(near, Box::new(Enters(mux.clone()))).unwrap();
    write_all(&far, b"x");
    until(
        "it is down",
        || matches!(mux.try_event(), Some(Event::PsockDown { psock: down, .. }) if down == psock),
    );
}

#[test]
fn case_027__unattach_twice_at_once() {
    let (mux, _socket) = Mux::open(Config::default()).unwrap();
    for _ in 0..300 {
        let (near, far) = pair();
        let psock = mux.attach(near, frames()).unwrap();
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| mux.unattach(psock))).collect();
            tries.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut off = outcomes.into_iter().filter_map(|outcome| match outcome {
            Ok((_, stream)) => Some(stream),
            Err(UnattachError::Unknown | UnattachError::Already) => None,
            Err(error) => panic!("{error}"),
        });
        let stream = off.next().expect("one of them has it").expect("it was TCP");
        assert!(off.next().is_none(), "two have it");
        write_all(&far, b"x");
        (&stream).read_exact(&mut [0]).unwrap();
    }
    assert!(mux.psocks().is_empty());
}

/// The other ten thousand are simulated, in the tests of `peyk-kcm`.
#[test]
fn case_022__attach_while_bytes_arrive() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    for round in 0..super::stress::rounds(500) {
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
