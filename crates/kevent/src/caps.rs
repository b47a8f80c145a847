//! What the chosen backend can do here, and why it was chosen.

use std::fmt;

/// The mechanism in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendKind::Uring => "io_uring",
            BackendKind::Epoll => "epoll",
        })
    }
}

/// Version of the running kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Kernel {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl Kernel {
    /// Reads a release such as `6.18.4-generic`; zeroes for what cannot be read.
    pub fn parse(release: &str) -> Kernel {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        Kernel { major: numbers.next().unwrap_or(0), minor: numbers.next().unwrap_or(0) }
    }
}

/// A backend that was tried and not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which one.
    pub backend: BackendKind,
    /// What stood against it.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}

/// What a queue runs on.
#[derive(Debug, Clone)]
pub struct Caps {
    /// The backend in use.
    pub backend: BackendKind,
    /// The running kernel.
    pub kernel: Kernel,
    /// Backends tried before, with the reason each was given up.
    pub attempts: Vec<Attempt>,
    /// Datagrams are received by multishot operations into provided blocks.
    pub multishot_recvmsg: bool,
    /// Set-up flags of the ring that were accepted; empty on epoll.
    pub flags: Vec<&'static str>,
    /// The ring's descriptor is registered, which saves a table look-up in each call.
    pub registered_ring: bool,
    /// Sends without a copy can be asked for; whether the route copies after all is another matter.
    pub zero_copy: bool,
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on Linux {}.{}", self.backend, self.kernel.major, self.kernel.minor)?;
        for attempt in &self.attempts {
            write!(f, "; not {attempt}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel__parses_releases() {
        assert_eq!(Kernel::parse("6.18.44-fc-v669"), Kernel { major: 6, minor: 18 });
        assert_eq!(Kernel::parse("7.0-rc1"), Kernel { major: 7, minor: 0 });
        assert_eq!(Kernel::parse("odd"), Kernel::default());
        assert!(Kernel::parse("6.1.9") > Kernel::parse("5.15.0"));
    }
}
