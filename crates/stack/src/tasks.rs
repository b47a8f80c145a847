//! Application tasks on the shard itself: an executor of the completion queue as a service.
//!
//! The executor has a queue of its own. The shard's driver watches that queue's descriptor, so the
//! shard sleeps in one place and wakes for packets and for tasks alike; each of its turns gives the
//! tasks theirs.

use std::future::Future;

use peyk_kevent::local::{Local, Task};
use peyk_kevent::{Config, Wait};
use peyk_sansio::Instant;

use crate::error::BindError;
use crate::service::{Context, Service};

/// Rounds of the executor in one turn of the shard: tasks that always have something to do must not
/// keep packets waiting.
const ROUNDS: usize = 4;

/// For [`Stack::serve`](crate::Stack::serve): runs `main`, and the tasks it starts, on the shard. The
/// service ends when `main` has, or when it is stopped; its tasks are then dropped.
///
/// Tasks may await anything: operations of the executor they are given, sockets of a stack (opened
/// before and moved in), channels. They must not block: while one runs, no packet is handled.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use peyk_stack::{Config, Socket, Stack, tasks};
/// let stack = Stack::start(Config::default().with_udp_port(0))?;
/// let echo = stack.serve_fn("127.0.0.1:4001", |request| request)?;
/// let (client, to) = (Socket::open(&stack)?, echo.local_addr().unwrap());
/// let (tell, told) = std::sync::mpsc::channel();
/// let serving = stack.serve(tasks::run(Default::default(), move |local| async move {
///     local.sleep(std::time::Duration::from_millis(1)).await.unwrap();
///     let response = client.call(to, "from a task").await.unwrap();
///     let _ = tell.send(response.message.to_vec());
/// }))?;
/// assert_eq!(told.recv()?, b"from a task");
/// # drop(serving);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The closure returns the system's: no queue can be made or watched.
pub fn run<F, M>(
    config: Config,
    main: F,
) -> impl FnOnce(&mut Context<'_>) -> Result<Box<dyn Service>, BindError> + Send + 'static
where
    F: FnOnce(Local) -> M + Send + 'static,
    M: Future<Output = ()> + 'static,
{
    move |cx| {
        let local = Local::new(config).map_err(|error| BindError::Tasks(std::io::Error::other(error)))?;
        let fd = local.with_queue(|queue| queue.guest_fd()?.try_clone_to_owned());
        fd.and_then(|fd| cx.watch(fd)).map_err(BindError::Tasks)?;
        let main = local.spawn(main(local.clone()));
        Ok(Box::new(Tasks { local, main }))
    }
}

struct Tasks {
    local: Local,
    main: Task<()>,
}

impl Service for Tasks {
    fn on_event(&mut self, _: &mut Context<'_>, _: peyk_homa::Event) {}

    fn on_turn(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        for _ in 0..ROUNDS {
            match self.local.turn(Wait::now()) {
                Ok(0) if !self.local.is_ready() => {
                    if self.main.is_over() {
                        cx.stop();
                    }
                    return self.local.next_deadline().map(|at| cx.at(at));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the tasks on this shard cannot go on");
                    cx.stop();
                    return None;
                }
            }
        }
        Some(cx.now())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // They hold the executor, and it holds them.
        self.local.stop();
    }
}
