//! The command line as users meet it: what it refuses, how it says so, and what its documents hold.

#[cfg(test)]
mod documents;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod without_agent;

/// Assertions that several of the modules share.
#[cfg(test)]
mod expect {
    use lb_tests::agent::Reply;

    /// Refused or failed: exit status 1.
    pub(crate) const REFUSED: &[i32] = &[1];
    /// Wrong usage: exit status 2.
    pub(crate) const USAGE: &[i32] = &[2];
    /// A value that is wrong in itself: whether that is usage or refused is the command's choice.
    pub(crate) const EITHER: &[i32] = &[1, 2];

    /// One line on standard error that fits a screen and says `what`, nothing on standard output, the right status.
    pub(crate) fn one_clear_line(case: &str, reply: &Reply, statuses: &[i32], what: &str) {
        assert!(
            statuses.contains(&reply.status),
            "{case}: status {} and not {statuses:?}: {reply:?}",
            reply.status
        );
        let lines: Vec<_> = reply.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "{case}: not one line: {:?}", reply.stderr);
        assert!(lines[0].len() < 500, "{case}: {} bytes in one line", lines[0].len());
        assert!(lines[0].contains(what), "{case}: {:?} does not say {what:?}", lines[0]);
        assert_eq!(reply.stdout, "", "{case}: standard output is for results");
        let panicked = reply.stderr.contains("panicked") || reply.stderr.contains("RUST_BACKTRACE");
        assert!(!panicked, "{case}: {:?}", reply.stderr);
    }
}
