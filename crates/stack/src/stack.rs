//! Starting and stopping a stack.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use peyk_homa::Endpoint;
use peyk_sockbuf::{Message, PAGE, Payload, Pool};

use crate::addr::{Addr, ToAddr};
use crate::app::{Shared, Submission};
use crate::clock::Clock;
use crate::config::Config;
use crate::core::Core;
use crate::driver::capture::Capture;
use crate::driver::fault::Faulty;
use crate::driver::udp::UdpDriver;
use crate::driver::{Caps, Driver};
use crate::error::{BindError, Error, StartError};
use crate::service::{Context, Handler, Service};
use crate::shard::Shard;
use crate::socket::ask;
use crate::stats::StackStats;

/// A running stack: one shard on a thread of its own. Clones share it. It stops when
/// [`Stack::stop`] is called, or when the last clone is dropped; its peers are told.
#[derive(Clone)]
pub struct Stack {
    inner: Arc<Running>,
}

struct Running {
    shared: Arc<Shared>,
    caps: Caps,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Stack {
    /// Starts a stack.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the kernel refuses sockets, memory or a thread.
    pub fn start(config: Config) -> Result<Stack, StartError> {
        let (started, result) = mpsc::sync_channel(1);
        let name = config.name.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let (shard, shared, caps) = match build(&config) {
                Ok(built) => built,
                Err(e) => return drop(started.send(Err(e))),
            };
            let guard = StopGuard(shared.clone());
            if started.send(Ok((shared, caps))).is_ok() {
                shard.run();
            }
            drop(guard);
        })?;
        match result.recv() {
            Ok(Ok((shared, caps))) => {
                let thread = std::sync::Mutex::new(Some(thread));
                Ok(Stack { inner: Arc::new(Running { shared, caps, thread }) })
            }
            Ok(Err(e)) => {
                let _ = thread.join();
                Err(e)
            }
            Err(_) => Err(std::io::Error::other("the shard's thread died while starting").into()),
        }
    }

    /// Runs an application on the shard itself. `build` is called on the shard's thread, opens
    /// the sockets and makes the service. Waits for one turn of the shard's loop.
    ///
    /// # Errors
    /// What `build` returned, the stack has stopped, or this is the shard's own thread.
    pub fn serve<F>(&self, build: F) -> Result<Serving, BindError>
    where
        F: FnOnce(&mut Context<'_>) -> Result<Box<dyn Service>, BindError> + Send + 'static,
    {
        let shared = self.inner.shared.clone();
        let (id, generation) = ask(&shared, |done| Submission::Serve { build: Box::new(build), done })??;
        Ok(Serving { shared, id, generation, addr: None, attached: true })
    }

    /// Answers the requests that come to `addr` by a function on the shard itself: no hand-off to
    /// another thread and back. While the function runs, no packet is handled: it must not block
    /// and should take microseconds. An empty response refuses the request.
    ///
    /// # Errors
    /// As [`Socket::bind`](crate::Socket::bind).
    pub fn serve_fn<F, R>(&self, addr: impl ToAddr, mut handler: F) -> Result<Serving, BindError>
    where
        F: FnMut(Message) -> R + Send + 'static,
        R: Into<Payload>,
    {
        let addr = addr.to_addr()?;
        let (bound, result) = mpsc::sync_channel(1);
        let mut serving = self.serve(move |cx| {
            let (_, addr) = cx.bind(addr)?;
            // The other end waits for us below.
            let _ = bound.send(addr);
            Ok(Box::new(Handler::new(move |message| handler(message).into())))
        })?;
        serving.addr = result.try_recv().ok();
        Ok(serving)
    }

    /// Counters of the stack. Waits for one turn of the shard's loop.
    ///
    /// # Errors
    /// The stack has stopped, or this is the shard's own thread.
    pub fn stats(&self) -> Result<StackStats, Error> {
        Ok(ask(&self.inner.shared, |done| Submission::Stats { done })?)
    }

    /// Which kernel interfaces the stack uses, and why.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// Stops the stack: open sockets are closed, peers and waiting futures told. Returns when
    /// the shard's thread has ended.
    pub fn stop(&self) {
        self.inner.stop();
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

impl Running {
    fn stop(&self) {
        self.shared.submit_late(Submission::Stop);
        let thread = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic on the shard was printed by the shard; everyone waiting was told.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A service under way on a shard; it ends when this is dropped, unless detached.
pub struct Serving {
    shared: Arc<Shared>,
    id: usize,
    generation: u64,
    addr: Option<Addr>,
    attached: bool,
}

impl Serving {
    /// Where requests go, if it was started by [`Stack::serve_fn`].
    pub fn local_addr(&self) -> Option<Addr> {
        self.addr
    }

    /// Lets the service run as long as the stack does.
    pub fn detach(mut self) {
        self.attached = false;
    }

    /// Ends the service and closes its sockets.
    pub fn stop(self) {}
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.attached {
            self.shared.submit_late(Submission::StopService { id: self.id, generation: self.generation });
        }
    }
}

/// Tells everyone that the shard is gone, however its thread ends.
struct StopGuard(Arc<Shared>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.stopped();
        self.0.discard();
    }
}

fn build(config: &Config) -> Result<(Shard, Arc<Shared>, Caps), StartError> {
    if let Some(cpu) = config.cpu {
        crate::sys::pin_to_cpu(cpu)?;
    }
    let clock = Clock::start();
    let now = clock.now();
    let udp = UdpDriver::new(config)?;
    let caps = udp.caps().clone();
    let mut driver: Box<dyn Driver> = Box::new(udp);
    if let Some(path) = &config.capture {
        let capture = Capture::create(driver, path);
        driver = Box::new(capture.map_err(|source| StartError::Capture { path: path.clone(), source })?);
    }
    let seed = match config.seed {
        Some(seed) => seed,
        None => crate::sys::random_u64()?,
    };
    if let Some(faults) = &config.faults {
        driver = Box::new(Faulty::new(driver, *faults, seed));
    }
    let pages = config.receive_memory.div_ceil(PAGE).max(1);
    let pool = Pool::new(u32::try_from(pages).unwrap_or(u32::MAX));
    let endpoint = Endpoint::new(config.homa.clone(), seed, pool, now)?;
    let max_message = config.homa.max_message as usize;
    let shared = Arc::new(Shared::new(config.submissions, max_message, driver.waker()));
    let core = Core::new(endpoint, driver, config, now);
    Ok((Shard::new(core, clock, shared.clone(), config), shared, caps))
}
