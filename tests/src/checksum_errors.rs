//! Wrong checksums that the kernel of an end host has counted.

use anyhow::Result;

use crate::netns::Namespace;

/// How many packets the stack of a namespace has refused for a wrong checksum, over all protocols.
///
/// # Errors
/// When `/proc/net` cannot be read.
pub fn count(namespace: &Namespace) -> Result<u64> {
    let (snmp, snmp6) = namespace.run(|| {
        // `/proc/net` is that of the first thread; `thread-self` is this one.
        let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        Ok::<_, std::io::Error>((read("snmp")?, read("snmp6")?))
    })?;
    Ok(count_checksum_errors(&snmp) + count_checksum_errors_v6(&snmp6))
}

/// `/proc/net/snmp` has two lines per protocol: the names, then the values. IP header checksum errors are counted under
/// `InHdrErrors`, those of TCP, UDP and ICMP under `InCsumErrors`.
fn count_checksum_errors(snmp: &str) -> u64 {
    let lines: Vec<&str> = snmp.lines().collect();
    let pairs =
        lines.chunks_exact(2).flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
    pairs
        .filter(|(name, _)| matches!(*name, "InCsumErrors" | "InHdrErrors"))
        .filter_map(|(_, n)| n.parse::<u64>().ok())
        .sum()
}

/// `/proc/net/snmp6` has one name and one value per line; TCP over IPv6 is counted in `snmp`.
fn count_checksum_errors_v6(snmp6: &str) -> u64 {
    let pairs = snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs
        .filter(|(name, _)| name.ends_with("InCsumErrors"))
        .filter_map(|(_, n)| n.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_errors_are_found_by_name_not_by_column() {
        let snmp = "Ip: Forwarding InHdrErrors\nIp: 2 3\nTcp: RtoMin InCsumErrors OutRsts\nTcp: -1 4 9\n";
        assert_eq!(count_checksum_errors(snmp), 7);
        assert_eq!(
            count_checksum_errors_v6("Udp6InErrors    \t8\nUdp6InCsumErrors\t5\nIcmp6InCsumErrors  \t1\n"),
            6
        );
    }
}
