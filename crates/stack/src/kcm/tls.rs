//! TLS below a mux: whole messages over decrypted bytes, through rustls. Keys and certificates are the
//! caller's: he gives a connection that is configured, handshake done or not.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::Connection;

use super::conn::Stream;

/// Most plaintext that waits encrypted for the socket, in bytes.
const BUFFER: usize = 256 * 1024;

/// A TLS connection over TCP.
pub struct TlsConn {
    tcp: TcpStream,
    /// Both directions share one state; each use is short and makes no waiting call.
    tls: Mutex<Connection>,
}

impl TlsConn {
    /// Wraps a TCP connection and the state of TLS over it.
    ///
    /// # Errors
    /// The system refuses to change its mode.
    pub fn new(tcp: TcpStream, tls: impl Into<Connection>) -> io::Result<TlsConn> {
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        let mut tls = tls.into();
        tls.set_buffer_limit(Some(BUFFER));
        let conn = TlsConn { tcp, tls: Mutex::new(tls) };
        conn.flush_own()?;
        Ok(conn)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the socket what it takes of the encrypted bytes.
    fn push(&self, tls: &mut Connection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut &self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Stream for TlsConn {
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.lock();
        loop {
            match tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            let count = tls.read_tls(&mut &self.tcp)?;
            let processed = tls.process_new_packets().map_err(io::Error::other);
            self.push(&mut tls)?;
            processed?;
            if count == 0 {
                // The reader knows whether this end was announced.
                return tls.reader().read(buf);
            }
        }
    }

    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut tls = self.lock();
        let mut taken = 0;
        for buf in bufs {
            let mut rest: &[u8] = buf;
            while !rest.is_empty() {
                let count = tls.writer().write(rest)?;
                self.push(&mut tls)?;
                rest = &rest[count..];
                taken += count;
                // Full: either the socket says when it has room, or the peer when the handshake is done.
                if count == 0 || (tls.wants_write() && !rest.is_empty()) {
                    return if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) };
                }
            }
        }
        Ok(taken)
    }

    fn flush_own(&self) -> io::Result<()> {
        self.push(&mut self.lock())
    }

    fn short_read_is_all(&self) -> bool {
        false
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    fn shut_down(&self) {
        let mut tls = self.lock();
        tls.send_close_notify();
        let _ = self.push(&mut tls);
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}
