//! Static files over HTTP/1.1, driven by wrk: the completion queue beside nginx and tokio, each with
//! one thread on one CPU; wrk has the other.

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Effort, Findings};

/// A server process; ended when dropped.
struct Server {
    process: Child,
    /// Whose CPU time counts.
    worker: u32,
    addr: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: nginx ends its worker then. It may have ended by itself.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        for _ in 0..200 {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SERVERS: [&str; 5] =
    ["nginx", "kevent, io_uring", "kevent, epoll", "epoll and sendfile alone", "tokio, bodies from memory"];

/// Measures; `folder` is for the files that are served.
pub fn run(effort: Effort, folder: &Path, findings: &mut Findings) -> Result<()> {
    if !is_there("wrk") {
        findings.absent.push("HTTP: wrk is not installed (Debian: wrk)".into());
        return Ok(());
    }
    let with_nginx = is_there("nginx");
    if !with_nginx {
        findings.absent.push("HTTP: nginx is not installed (Debian: nginx-light)".into());
    }
    let folder = folder.join(format!("peyk-www-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    findings.absent.push("HTTP: a server on the io-uring crate alone: there is none".into());
    let result = measure(effort, &folder, with_nginx, findings);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = [Path::new("/usr/sbin").to_owned(), Path::new("/usr/local/sbin").to_owned()];
    std::env::split_paths(&path).chain(extra).any(|dir| dir.join(program).is_file())
}

/// A kind of load, and what is asked of the queue under it.
struct Case {
    name: &'static str,
    size: usize,
    connections: u32,
    /// Each request has a connection of its own.
    is_churn: bool,
    rate_goal: f64,
    cpu_goal: Option<f64>,
}

const CASES: [Case; 4] = [
    Case {
        name: "100 B",
        size: 100,
        connections: 64,
        is_churn: false,
        rate_goal: 1.25,
        cpu_goal: Some(0.75),
    },
    Case {
        name: "4 KiB",
        size: 4096,
        connections: 64,
        is_churn: false,
        rate_goal: 1.25,
        cpu_goal: Some(0.75),
    },
    Case {
        name: "1 MiB",
        size: 1 << 20,
        connections: 16,
        is_churn: false,
        rate_goal: 1.5,
        cpu_goal: Some(0.6),
    },
    Case {
        name: "100 B, a connection for each",
        size: 100,
        connections: 64,
        is_churn: true,
        rate_goal: 0.95,
        cpu_goal: None,
    },
];

fn measure(effort: Effort, folder: &Path, with_nginx: bool, findings: &mut Findings) -> Result<()> {
    for case in &CASES {
        let file = format!("{}.bin", case.size);
        std::fs::write(folder.join(&file), vec![b'x'; case.size])?;
        let mut loads: [Vec<Load>; SERVERS.len()] = Default::default();
        for _ in 0..effort.rounds {
            for (at, server) in SERVERS.iter().enumerate() {
                if at == 0 && !with_nginx {
                    continue;
                }
                let server = start(server, folder)?;
                loads[at].push(load(&server, &file, case, effort.time.max(Duration::from_secs(1)))?);
            }
        }
        report(case, &loads, findings);
    }
    Ok(())
}

fn report(case: &Case, loads: &[Vec<Load>; SERVERS.len()], findings: &mut Findings) {
    let title = format!("HTTP, files of {}, {} connections", case.name, case.connections);
    let rates = loads.each_ref().map(|loads| loads.iter().map(|l| l.rate).collect::<Vec<_>>());
    let costs = loads.each_ref().map(|loads| loads.iter().map(|l| l.cpu).collect::<Vec<_>>());
    for (at, server) in SERVERS.iter().enumerate() {
        if !rates[at].is_empty() {
            let total: f64 = loads[at].iter().map(|l| l.requests).sum();
            let note =
                if case.is_churn { format!("{total:.0} connections, no error") } else { String::new() };
            findings.row(&title, server, "requests/s", &rates[at], note);
            findings.row(&title, server, "CPU us/request", &costs[at], "");
        }
    }
    let name = case.name;
    let rate = format!("HTTP {name}: requests/s, kevent / nginx");
    findings.bar(&rate, &rates[1], &rates[0], case.rate_goal, true);
    if let Some(goal) = case.cpu_goal {
        findings.bar(&format!("HTTP {name}: CPU, kevent / nginx"), &costs[1], &costs[0], goal, false);
    }
}

fn start(name: &str, folder: &Path) -> Result<Server> {
    if name == "nginx" {
        return start_nginx(folder);
    }
    let (server, backend) = match name {
        "kevent, io_uring" => ("kevent", "uring"),
        "kevent, epoll" => ("kevent", "epoll"),
        "epoll and sendfile alone" => ("epoll", "auto"),
        _ => ("tokio", "auto"),
    };
    let mut process = Command::new(std::env::current_exe()?)
        .args(["http-node", server])
        .arg(folder)
        .env("PEYK_BACKEND", backend)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut addr = String::new();
    let out = process.stdout.take().context("the server has no output")?;
    std::io::BufReader::new(out).read_line(&mut addr)?;
    let worker = process.id();
    Ok(Server { process, worker, addr: addr.trim().to_owned() })
}

fn start_nginx(folder: &Path) -> Result<Server> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let own = folder.display();
    let config = format!(
        "daemon off; user root; worker_processes 1; worker_cpu_affinity 1; pid {own}/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;\n\
         client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {own}; }} }}\n"
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config)?;
    let process = Command::new(std::env::current_exe()?)
        .args(["http-node", "nginx"])
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()
        .context("starting nginx")?;
    let master = process.id();
    let mut server = Server { process, worker: 0, addr: format!("127.0.0.1:{port}") };
    for _ in 0..200 {
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        server.worker = children.ok().and_then(|c| c.split(' ').next()?.parse().ok()).unwrap_or(0);
        if server.worker > 0 && std::net::TcpStream::connect(&server.addr).is_ok() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nginx did not start; try: nginx -t -c {}", path.display())
}

/// What came of one load.
struct Load {
    /// Requests a second.
    rate: f64,
    /// CPU microseconds of the server for each.
    cpu: f64,
    requests: f64,
}

/// Loads a server for a while. An error that the client meets is one here.
fn load(server: &Server, file: &str, case: &Case, time: Duration) -> Result<Load> {
    let before = cpu_of(server.worker)?;
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1"])
        .arg(format!("-c{}", case.connections))
        .arg(format!("-d{}", time.as_secs().max(1)))
        .args(if case.is_churn { &["-H", "Connection: close"][..] } else { &[] })
        .arg(format!("http://{}/{file}", server.addr))
        .output()
        .context("running taskset and wrk")?;
    let cpu = cpu_of(server.worker)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |label: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(label))?;
        line.trim_start().strip_prefix(label)?.split_whitespace().next()?.parse::<f64>().ok()
    };
    let rate = figure("Requests/sec:").with_context(|| format!("wrk said:\n{text}"))?;
    if let Some(errors) = text.lines().find(|l| l.contains("Socket errors") || l.contains("Non-2xx")) {
        bail!("wrk met errors: {}", errors.trim());
    }
    let total = text.lines().find(|l| l.contains(" requests in "));
    let total: f64 = total.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
    Ok(Load { rate, cpu: cpu * 1e6 / total, requests: total })
}

/// CPU seconds of a process so far: from the scheduler, which counts nanoseconds.
fn cpu_of(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += stat.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
    }
    Ok(sum)
}
