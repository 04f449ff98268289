//! What of this machine keeps a sandbox from being made.

/// A setting that is in the way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// The setting.
    pub(crate) place: String,
    /// What changes it.
    pub(crate) advice: String,
}

/// Looks for the setting that forbids unprivileged user namespaces.
pub(crate) fn namespace_obstacle(denied: bool) -> Option<Obstacle> {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let obstacle = |place: String, advice: &str| Some(Obstacle { place, advice: advice.to_owned() });
    let most = "/proc/sys/user/max_user_namespaces";
    if read(most).as_deref() == Some("0") {
        return obstacle(
            format!("{most} is 0 on this host"),
            "ask for `sysctl user.max_user_namespaces=15000`",
        );
    }
    let clone = "/proc/sys/kernel/unprivileged_userns_clone";
    if denied && read(clone).as_deref() == Some("0") {
        return obstacle(
            format!("{clone} is 0 on this host"),
            "ask for `sysctl kernel.unprivileged_userns_clone=1`",
        );
    }
    let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if denied && read(apparmor).as_deref() == Some("1") {
        return obstacle(
            format!("{apparmor} is 1 on this host"),
            "ask for an AppArmor profile that lets sandbar use user namespaces",
        );
    }
    None
}
