//! Starting and stopping a stack.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use peyk_homa::{Budget, Endpoint, SocketId};
use peyk_kevent::Handle;
use peyk_sockbuf::{Message, PAGE, Payload, Pool, oneshot};

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
use crate::mesh::Mesh;
use crate::service::{Context, Handler, Service};
use crate::shard::Shard;
use crate::socket::ask;
use crate::spread;
use crate::stats::StackStats;

/// A running stack: its shards, each on a thread of its own. Clones share it. It stops when
/// [`Stack::stop`] is called, or when the last clone is dropped; its peers are told.
#[derive(Clone)]
pub struct Stack {
    inner: Arc<Running>,
}

struct Running {
    shards: Vec<Arc<Shared>>,
    caps: Caps,
    udp_port: u16,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held by an application while it opens a socket on all shards, so that two that want the
    /// same address make one group of it. No shard ever takes it.
    binding: Mutex<()>,
}

/// Numbers of stacks, from 1.
static STACKS: AtomicU64 = AtomicU64::new(1);
/// Numbers of threads that opened sockets, which are spread over the shards by it.
static THREADS: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

impl Stack {
    /// Starts a stack.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the kernel refuses sockets, memory or a thread.
    pub fn start(config: Config) -> Result<Stack, StartError> {
        let count = u8::try_from(config.shards.max(1)).map_err(|_| StartError::TooManyShards)?;
        let budget = Arc::new(Budget::new(count, u64::from(config.homa.max_incoming)));
        let stack = STACKS.fetch_add(1, Ordering::Relaxed);
        let (mut starting, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let config = config_of(&config, number, count);
            let (started, result) = mpsc::sync_channel(1);
            // Dropped if another shard does not start: then this one ends.
            let (go, mesh) = mpsc::sync_channel(1);
            let budget = budget.clone();
            let thread = std::thread::Builder::new().name(config.name.clone());
            let thread = thread.spawn(move || run(&config, stack, budget, &started, &mesh))?;
            threads.push(thread);
            starting.push((result, go));
        }
        let (shards, caps) = match wait_for(&starting) {
            Ok(found) => found,
            Err(e) => {
                drop(starting);
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return Err(e);
            }
        };
        let meshes: Vec<Option<Mesh>> = if count > 1 {
            let handles: Vec<Handle> = shards.iter().map(|shared| shared.handle()).collect();
            Mesh::between(&handles).into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        for ((_, go), mesh) in starting.into_iter().zip(meshes) {
            // A shard that is gone meanwhile has said so to all who ask it.
            let _ = go.send(mesh);
        }
        let (threads, udp_port) = (Mutex::new(threads), config.udp_port);
        Ok(Stack { inner: Arc::new(Running { shards, caps, udp_port, threads, binding: Mutex::new(()) }) })
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
        self.serve_on(0, build)
    }

    /// As [`Stack::serve`], on the shard with this number, counted from 0. What it binds is served
    /// by that shard alone and has a UDP port of its own.
    ///
    /// # Errors
    /// As [`Stack::serve`]; there is no such shard.
    pub fn serve_on<F>(&self, shard: usize, build: F) -> Result<Serving, BindError>
    where
        F: FnOnce(&mut Context<'_>) -> Result<Box<dyn Service>, BindError> + Send + 'static,
    {
        let shared = self.shards().get(shard).ok_or(BindError::NoShard)?.clone();
        let (id, generation) = ask(&shared, |done| Submission::Serve { build: Box::new(build), done })??;
        Ok(Serving { parts: vec![ServingPart { shared, id, generation }], addr: None, attached: true })
    }

    /// Runs an application on every shard, each with its part of a server socket at `addr`: the
    /// kernel spreads requests over them. `build` is called on each shard's thread.
    ///
    /// # Errors
    /// What `build` returned, a port cannot be had, the stack has stopped, or this is a shard's
    /// own thread.
    pub fn serve_each<F>(&self, addr: impl ToAddr, build: F) -> Result<Serving, BindError>
    where
        F: Fn(&mut Context<'_>, SocketId) -> Result<Box<dyn Service>, BindError> + Send + Sync + 'static,
    {
        let addr = addr.to_addr()?;
        if self.shards().len() == 1 {
            return self.serve_at(addr, build);
        }
        let _one_at_a_time = self.binding();
        let mut serving = Serving { parts: Vec::new(), addr: None, attached: true };
        let build = Arc::new(build);
        let mut port = (addr.port != 0).then_some(addr.port);
        let mut sockets = Vec::new();
        for (index, shared) in self.shards().iter().enumerate() {
            let agreed = index > 0;
            let (build, (opened, result)) = (build.clone(), mpsc::sync_channel(1));
            let build = move |cx: &mut Context<'_>| {
                let (socket, port) = cx.open_part(port, agreed)?;
                // The other end waits for us below.
                let _ = opened.send((socket, port));
                build(cx, socket)
            };
            let (id, generation) = ask(shared, |done| Submission::Serve { build: Box::new(build), done })??;
            serving.parts.push(ServingPart { shared: shared.clone(), id, generation });
            let (socket, found) = result.try_recv().map_err(|_| BindError::Stopped)?;
            port = Some(found);
            sockets.push(socket);
        }
        let actual = spread::carry(self, addr, &sockets)?;
        serving.addr = Some(Addr { ip: addr.ip, port: port.unwrap_or_default(), udp_port: actual.port() });
        Ok(serving)
    }

    /// As [`Stack::serve_fn`], by one function on every shard, which `make` makes.
    ///
    /// # Errors
    /// As [`Stack::serve_each`].
    pub fn serve_fn_each<M, F, R>(&self, addr: impl ToAddr, make: M) -> Result<Serving, BindError>
    where
        M: Fn() -> F + Send + Sync + 'static,
        F: FnMut(Message) -> R + 'static,
        R: Into<Payload>,
    {
        self.serve_each(addr, move |_, _| {
            let mut handler = make();
            Ok(Box::new(Handler::new(move |message| handler(message).into())))
        })
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
        self.serve_at(addr.to_addr()?, move |_, _| {
            Ok(Box::new(Handler::new(move |message| handler(message).into())))
        })
    }

    /// Runs an application with a socket at `addr` on the first shard.
    fn serve_at<F>(&self, addr: Addr, build: F) -> Result<Serving, BindError>
    where
        F: FnOnce(&mut Context<'_>, SocketId) -> Result<Box<dyn Service>, BindError> + Send + 'static,
    {
        let (bound, result) = mpsc::sync_channel(1);
        let mut serving = self.serve(move |cx| {
            let (socket, addr) = cx.bind(addr)?;
            // The other end waits for us below.
            let _ = bound.send(addr);
            build(cx, socket)
        })?;
        serving.addr = result.try_recv().ok();
        Ok(serving)
    }

    /// Counters of the stack, all shards together. Waits for one turn of each shard's loop.
    ///
    /// # Errors
    /// The stack has stopped, or this is a shard's own thread.
    pub fn stats(&self) -> Result<StackStats, Error> {
        let mut shards = self.shard_stats()?.into_iter();
        let mut total = shards.next().ok_or(Error::Stopped)?;
        shards.for_each(|shard| total.add(&shard));
        Ok(total)
    }

    /// Counters of each shard, in order. Waits for one turn of each shard's loop.
    ///
    /// # Errors
    /// As [`Stack::stats`].
    pub fn shard_stats(&self) -> Result<Vec<StackStats>, Error> {
        self.shards().iter().map(|shared| Ok(ask(shared, |done| Submission::Stats { done })?)).collect()
    }

    /// Number of shards.
    pub fn shard_count(&self) -> usize {
        self.inner.shards.len()
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

    pub(crate) fn shards(&self) -> &[Arc<Shared>] {
        &self.inner.shards
    }

    /// The shard for what the calling thread opens: threads are spread over the shards.
    pub(crate) fn preferred_shard(&self) -> usize {
        THREAD.with(|number| number % self.inner.shards.len())
    }

    /// UDP port of bound sockets, unless they say otherwise.
    pub(crate) fn udp_port(&self) -> u16 {
        self.inner.udp_port
    }

    /// Makes other applications wait that open a socket on all shards.
    pub(crate) fn binding(&self) -> impl Drop + '_ {
        self.inner.binding.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Running {
    fn stop(&self) {
        let on_shard = self.shards.iter().any(|shared| shared.is_on_shard());
        if self.shards.len() > 1 && !on_shard {
            self.end_applications();
        }
        self.shards.iter().for_each(|shared| shared.submit_late(Submission::Stop));
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|e| e.into_inner()));
        // Shards do not wait for each other, so not for any of them from a shard.
        if on_shard {
            return;
        }
        for thread in threads {
            // A panic on a shard was printed by the shard; everyone waiting was told.
            let _ = thread.join();
        }
    }
}

impl Running {
    /// Tells applications that the stack stops, before one shard's farewell reaches another and
    /// they take it for a peer's.
    fn end_applications(&self) {
        let ending = self.shards.iter().map(|shared| {
            let (done, ended) = oneshot::cell();
            shared.submit_late(Submission::EndApp { done });
            ended
        });
        for ended in ending.collect::<Vec<_>>() {
            // One that is gone has told them.
            let _ = crate::block_on(ended);
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
    parts: Vec<ServingPart>,
    addr: Option<Addr>,
    attached: bool,
}

/// A service on one shard.
struct ServingPart {
    shared: Arc<Shared>,
    id: usize,
    generation: u64,
}

impl Serving {
    /// Where requests go, if it was started by [`Stack::serve_fn`] or on every shard.
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
            for ServingPart { shared, id, generation } in &self.parts {
                shared.submit_late(Submission::StopService { id: *id, generation: *generation });
            }
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

/// Waits until all shards have been built.
fn wait_for<T>(starting: &[(mpsc::Receiver<Started>, T)]) -> Result<(Vec<Arc<Shared>>, Caps), StartError> {
    let mut shards = Vec::new();
    let mut caps = None;
    for (result, _) in starting {
        let died = |_| io::Error::other("the shard's thread died while starting");
        let (shared, found) = result.recv().map_err(died)??;
        shards.push(shared);
        caps = Some(found);
    }
    Ok((shards, caps.expect("a stack has a shard")))
}

/// What one of `count` shards is told of the stack's configuration: its part of what is divided.
fn config_of(config: &Config, number: u8, count: u8) -> Config {
    let mut own = config.clone();
    (own.homa.shard, own.homa.shards) = (number, count);
    // The longest message must fit, or it could be received by no shard at all.
    let longest = (config.homa.max_message as usize).next_multiple_of(PAGE) + PAGE;
    let part = config.receive_memory / usize::from(count);
    own.receive_memory = part.max(longest.min(config.receive_memory));
    own.homa.max_send_bytes /= u64::from(count);
    own.seed = config.seed.map(|seed| seed.wrapping_add(u64::from(number)));
    if !config.cpus.is_empty() {
        own.cpus = vec![config.cpus[usize::from(number) % config.cpus.len()]];
    }
    if number > 0 {
        // The first measures for all: hosts are told one table.
        own.homa.adaptive_cutoffs = false;
        own.name = format!("{}-{number}", config.name);
        own.capture = config.capture.as_ref().map(|path| {
            let mut path = path.clone().into_os_string();
            path.push(format!(".{number}"));
            path.into()
        });
    }
    own
}

/// What a shard says when it has been built.
type Started = Result<(Arc<Shared>, Caps), StartError>;

/// A shard's thread.
fn run(
    config: &Config,
    stack: u64,
    budget: Arc<Budget>,
    started: &mpsc::SyncSender<Started>,
    mesh: &mpsc::Receiver<Option<Mesh>>,
) {
    let (core, clock, shared, caps) = match build(config, stack) {
        Ok(built) => built,
        Err(e) => return drop(started.send(Err(e))),
    };
    let _guard = StopGuard(shared.clone());
    if started.send(Ok((shared.clone(), caps))).is_ok()
        && let Ok(mesh) = mesh.recv()
    {
        let mut core = core;
        core.mesh = mesh;
        Shard::new(core, clock, shared, budget, config).run();
    }
}

fn build(config: &Config, stack: u64) -> Result<(Core, Clock, Arc<Shared>, Caps), StartError> {
    if let Some(&cpu) = config.cpus.first() {
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
    let shared = Arc::new(Shared::new(config.submissions, max_message, driver.waker(), stack));
    Ok((Core::new(endpoint, driver, config, now), clock, shared, caps))
}
