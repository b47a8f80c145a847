//! Tests that need a process of their own: they count what all of it has, or change it.

/// Runs the test of this name again in a process of its own; true in that process.
pub fn in_child(name: &str) -> bool {
    in_child_with(name, &[])
}

pub fn in_child_with(name: &str, env: &[(&str, &str)]) -> bool {
    if std::env::var_os("PEYK_CHILD").is_some_and(|child| child == name) {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me)
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env("PEYK_CHILD", name)
        .envs(env.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "{name} in a process of its own: {status}");
    false
}
