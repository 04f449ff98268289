//! survey
use kill_probe::{Task, Tracing};
use sandbar_testkit::{DEADLINE, Home, finish, need};

#[test]
fn survey() {
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let _ = need::program("git");
    let _ = finish(home.command("sh").args(["-c", "git init -q ."])).ok();
    let t = std::time::Instant::now();
    let tracing = Tracing::start(&home.shell(&[], "echo out; echo x > made"), Task::Survey);
    assert!(tracing.wait(DEADLINE));
    println!("run {:?}", t.elapsed());
    let t = std::time::Instant::now();
    println!("{:?}", home.finish(&["keeper", "stop"]));
    let traced = tracing.finish().unwrap();
    println!("stop {:?} {:?}", t.elapsed(), traced.status);
    for (place, deeds) in &traced.seen {
        let changes = deeds.steps.iter().filter(|(call, _)| call.changes_files()).count();
        let mut names: Vec<&str> = deeds.steps.iter().map(|(_, name)| name.as_str()).collect();
        names.dedup();
        println!("{place:?} steps {} changes {changes} {names:?}", deeds.steps.len());
    }
    let t = std::time::Instant::now();
    println!("{:?} {:?}", home.run(&[], "true").code, t.elapsed());
    let t = std::time::Instant::now();
    println!("{:?} {:?}", home.finish(&["keeper", "stop"]).code, t.elapsed());
    println!("{}", finish(home.command("find").args([home.sandbar_home().to_str().unwrap(), "-ls"])).out());
}
