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

fn measure(effort: Effort, folder: &Path, with_nginx: bool, findings: &mut Findings) -> Result<()> {
    let cases = [
        ("100 B", 100usize, 64, 1.25, 0.75),
        ("4 KiB", 4096, 64, 1.25, 0.75),
        ("1 MiB", 1 << 20, 16, 1.5, 0.6),
    ];
    for (name, size, connections, rate_goal, cpu_goal) in cases {
        let file = format!("{size}.bin");
        std::fs::write(folder.join(&file), vec![b'x'; size])?;
        let (mut rates, mut cpus) = (vec![Vec::new(); SERVERS.len()], vec![Vec::new(); SERVERS.len()]);
        for _ in 0..effort.rounds {
            for (at, server) in SERVERS.iter().enumerate() {
                if at == 0 && !with_nginx {
                    continue;
                }
                let server = start(server, folder)?;
                let (rate, cpu) = load(&server, &file, connections, effort.time.max(Duration::from_secs(1)))?;
                rates[at].push(rate);
                cpus[at].push(cpu);
            }
        }
        let case = format!("HTTP, files of {name}, {connections} connections");
        for (at, server) in SERVERS.iter().enumerate() {
            if !rates[at].is_empty() {
                findings.row(&case, server, "requests/s", &rates[at], "");
                findings.row(&case, server, "CPU us/request", &cpus[at], "");
            }
        }
        findings.bar(
            &format!("HTTP {name}: requests/s, kevent / nginx"),
            &rates[1],
            &rates[0],
            rate_goal,
            true,
        );
        findings.bar(&format!("HTTP {name}: CPU, kevent / nginx"), &cpus[1], &cpus[0], cpu_goal, false);
    }
    Ok(())
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

/// Requests a second, and CPU microseconds of the server for each.
fn load(server: &Server, file: &str, connections: u32, time: Duration) -> Result<(f64, f64)> {
    let before = cpu_of(server.worker)?;
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}", time.as_secs().max(1)))
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
    Ok((rate, cpu * 1e6 / total))
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
