//! The same guest elsewhere: on the bare machine, under Xen, under KVM; and by how much Bullpen is ahead.

use super::rows::{Findings, Row};
use super::{guest, kvm, xen};
use crate::say;
use serde_json::{Value, json};
use std::fmt::Write;

/// Where the guest can run besides Bullpen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// On the machine itself.
    Bare,
    /// Under Debian's Xen, as a domain without a dom0.
    Xen,
    /// Under the same Xen with the options that make it fastest; each vCPU owns a CPU.
    XenBest,
    /// Under Debian's Linux with KVM, with Debian's QEMU as its VMM.
    Kvm,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Xen => "xen",
            Self::XenBest => "xen-best",
            Self::Kvm => "kvm",
        }
    }
}

/// What a peer gave.
pub(crate) struct Measured {
    peer: Peer,
    /// Its rows, or why it cannot be had.
    findings: Result<Findings, String>,
}

/// Runs the guest on each of these peers.
pub(crate) fn measure(peers: &[Peer], samples: u32) -> Vec<Measured> {
    peers
        .iter()
        .map(|&peer| {
            say::line(&format!("the bench guest: {} …", peer.name()));
            let findings = match peer {
                Peer::Bare => found(guest::bare(samples)),
                Peer::Xen => found(xen::measure(samples)),
                Peer::XenBest => found(xen::at_its_best(samples)),
                Peer::Kvm => found(kvm::measure(samples)),
            };
            Measured { peer, findings }
        })
        .collect()
}

/// A peer without a single row is not there; why is the first thing that went wrong.
fn found(findings: Findings) -> Result<Findings, String> {
    match findings.failures.first() {
        Some((part, why)) if findings.rows.is_empty() => Err(format!("{part}: {why}")),
        _ => Ok(findings),
    }
}

/// Writes the medians side by side, with each peer's in multiples of Bullpen's.
pub(crate) fn table(ours: &Findings, peers: &[Measured]) -> String {
    let mut text = format!("{:<32}{:>9}", "median", "bullpen");
    for Measured { peer, .. } in peers {
        let _ = write!(text, "{:>16}", peer.name());
    }
    text.push('\n');
    for row in &ours.rows {
        let theirs: Vec<Option<&Row>> = peers.iter().map(|peer| peer.row(&row.name)).collect();
        if theirs.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "{:<32}{:>9}", row.name, row.median);
        for theirs in theirs {
            let cell = theirs.map_or_else(|| "-".to_owned(), |theirs| cell(row, theirs));
            let _ = write!(text, "{cell:>16}");
        }
        text.push('\n');
    }
    for Measured { peer, findings } in peers {
        match findings {
            Err(why) => {
                let _ = writeln!(text, "{}: not available: {why}", peer.name());
            }
            Ok(findings) => {
                for (row, why) in &findings.failures {
                    let _ = writeln!(text, "{}: {row}: {why}", peer.name());
                }
                for note in &findings.notes {
                    let _ = writeln!(text, "{}: {note}", peer.name());
                }
            }
        }
    }
    text
}

fn cell(ours: &Row, theirs: &Row) -> String {
    let (ours, theirs) = (ours.median.max(1), theirs.median.max(1));
    if theirs < ours {
        return format!("{theirs} x1/{}", ours / theirs);
    }
    let tenths = theirs * 10 / ours;
    format!("{theirs} x{}.{}", tenths / 10, tenths % 10)
}

impl Measured {
    /// The peer's name.
    pub(crate) fn name(&self) -> &'static str {
        self.peer.name()
    }

    /// A row of the peer's, if it gave that one.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.findings.as_ref().ok()?.row(name)
    }
}

/// Writes it for a program.
pub(crate) fn json(peers: &[Measured]) -> Value {
    let entries = peers.iter().map(|Measured { peer, findings }| {
        let value = match findings {
            Ok(findings) => findings.json(),
            Err(why) => json!({ "not_available": why }),
        };
        (peer.name().to_owned(), value)
    });
    Value::Object(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_given_and_absent_peers_said() {
        let rows = |median| Findings {
            rows: vec![Row::single("sgi-self", median)],
            ..Findings::default()
        };
        let peers = [
            Measured {
                peer: Peer::Xen,
                findings: Ok(rows(1029)),
            },
            Measured {
                peer: Peer::Kvm,
                findings: Err("no package".into()),
            },
        ];
        let text = table(&rows(174), &peers);
        assert!(text.contains("1029 x5.9"), "{text}");
        assert_eq!(cell(&Row::single("", 54), &Row::single("", 4)), "4 x1/13");
        assert!(text.contains("kvm: not available: no package"), "{text}");
        assert_eq!(json(&peers)["kvm"]["not_available"], "no package");
    }
}
