//! The report for people: a table of dialects, the rooms, and the connections if asked for. Pure.

use std::fmt::Write as _;

use super::report::{Report, version, versions};
use super::{ConnectionCount, ConnectionInfo, UnixSeconds};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::Evidence;

/// How many mixed rooms are listed where not all are asked for.
const MAX_ROOMS: usize = 20;

/// The report as a text of lines.
pub(super) fn text(report: &Report) -> String {
    let all = report.counts.all();
    // Writing to a string does not fail.
    let mut out = format!(
        "sigver {} on {}, counting since {} ({} ago)\nconnections: {} now, {} in total\n\n",
        env!("CARGO_PKG_VERSION"),
        report.address,
        report.started,
        report.started.ago(report.time),
        all.now,
        all.total,
    );
    out.push_str(&text_table(&dialects(report), CellAlignment::Left));
    rooms(&mut out, report);
    if let Some(connections) = &report.connections {
        out.push('\n');
        let head = ["connection", "since", "dialect", "recognised by", "releases left"].map(str::to_owned);
        let rows = std::iter::once(head.to_vec()).chain(connections.iter().map(connection));
        out.push_str(&text_table(&rows.collect::<Vec<_>>(), CellAlignment::Left));
    }
    out
}

/// Every dialect that is served or was seen.
fn dialects(report: &Report) -> Vec<Vec<String>> {
    let head = ["dialect", "releases", "now", "total", "last seen", "perhaps now", "total", "last seen"];
    let head = head.into_iter().chain(["recognised by"]);
    let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    let tally = |tally: ConnectionCount| {
        [tally.now.to_string(), tally.total.to_string(), seen(tally, report.time)].into_iter()
    };
    let none = || ["", "", ""].map(str::to_owned).into_iter();
    for dialect in Dialect::ALL {
        let used = report.counts.of(dialect);
        if !report.serves(dialect) && used.taken.total + used.perhaps.total == 0 {
            continue;
        }
        let by = Evidence::ALL.into_iter().zip(used.by).filter(|(_, by)| by.total > 0);
        let by: Vec<String> = by.map(|(evidence, by)| format!("{evidence} {}", by.total)).collect();
        let name = [dialect.name().to_owned(), versions(dialect).join(", ")];
        let rest = tally(used.taken).chain(tally(used.perhaps)).chain([by.join(", ")]);
        rows.push(name.into_iter().chain(rest).collect());
    }
    let unrecognised = report.counts.unrecognised;
    let others = [("signaller", report.relay_served, report.relay), ("(not recognised)", true, unrecognised)];
    for (name, served, counted) in others {
        if served || counted.total > 0 {
            let name = [name.to_owned(), String::new()];
            rows.push(name.into_iter().chain(tally(counted)).chain(none()).chain([String::new()]).collect());
        }
    }
    rows
}

fn rooms(out: &mut String, report: &Report) {
    let rooms = &report.rooms;
    let _ = writeln!(
        out,
        "\nrooms: {} now; {} with more than one dialect, {} with more than one generation of clients ({} ever)",
        rooms.total, rooms.mixed, rooms.generations, rooms.generations_ever
    );
    let shown = if rooms.every { rooms.list.len() } else { MAX_ROOMS };
    for seen in rooms.list.iter().take(shown) {
        let peers: Vec<String> =
            seen.peers.iter().map(|(dialect, count)| format!("{dialect} {count}")).collect();
        let generations = match seen.generations() {
            0 | 1 => String::new(),
            many => format!(" ({many} generations)"),
        };
        let _ = writeln!(out, "{:08x}  {}{generations}", seen.room, peers.join(", "));
    }
    if rooms.list.len() > shown {
        let _ = writeln!(out, "and {} more: sigver status --rooms", rooms.list.len() - shown);
    }
}

fn connection(live: &ConnectionInfo) -> Vec<String> {
    let id_and_time = [live.peer.0.to_string(), live.since.to_string()];
    let known = match live.known {
        Some(known) => {
            let releases: Vec<&str> = known.releases.iter().map(version).collect();
            [known.dialect.to_string(), known.evidence.to_string(), releases.join(", ")]
        }
        None => ["?", "", ""].map(str::to_owned),
    };
    id_and_time.into_iter().chain(known).collect()
}

fn seen(tally: ConnectionCount, time: UnixSeconds) -> String {
    match (tally.now, tally.gone) {
        (0, None) => "never".to_owned(),
        (0, Some(gone)) => format!("{} ago", gone.ago(time)),
        _ => "now".to_owned(),
    }
}

/// The alignment of the cells of a text table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellAlignment {
    Left,
    Right,
}

/// Renders rows as a text table, with columns as wide as the widest of their cells.
pub(crate) fn text_table(rows: &[Vec<String>], alignment: CellAlignment) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = match alignment {
                CellAlignment::Left => write!(line, "{cell:<width$}  "),
                CellAlignment::Right => write!(line, "{cell:>width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
