//! The report for people: a table of dialects, the rooms, and the connections if asked for.

use std::fmt::Write as _;

use super::UnixSeconds;
use super::report::{ConnectionReport, CountReport, Report, RoomsReport};

/// Number of rooms listed where not all are asked for.
const MAX_ROOMS: usize = 20;

/// Returns the report as lines of text.
pub(super) fn render(report: &Report) -> String {
    // Writing to a string does not fail.
    let mut out = format!(
        "sigver {} on {}, counting since {} ({} ago)\nconnections: {} active, {} in total\n\n",
        report.version,
        report.address,
        report.started,
        report.started.age(report.time),
        report.connections.active,
        report.connections.total,
    );
    push_table(&mut out, &dialect_rows(report));
    push_rooms(&mut out, &report.rooms);
    let reached = report.limits.iter().filter(|(_, count)| *count > 0);
    let reached: Vec<String> =
        reached.map(|(kind, count)| format!("{} {count}", kind.name().replace('_', " "))).collect();
    if !reached.is_empty() {
        let _ = writeln!(out, "limits reached: {}", reached.join(", "));
    }
    if let Some(connections) = &report.connection_list {
        out.push('\n');
        let header = ["connection", "since", "dialect", "evidence", "possible releases"].map(str::to_owned);
        let rows = connections.iter().map(connection_row);
        push_table(&mut out, &std::iter::once(header).chain(rows).collect::<Vec<_>>());
    }
    out
}

/// Returns a row for each dialect that is served or was seen.
fn dialect_rows(report: &Report) -> Vec<[String; 9]> {
    let header =
        ["dialect", "releases", "active", "total", "last seen", "possible", "total", "last seen", "evidence"];
    let mut rows = vec![header.map(str::to_owned)];
    for usage in &report.dialects {
        if !usage.served && usage.assigned.total + usage.possible.total == 0 {
            continue;
        }
        let evidence = usage.by_evidence.iter().filter(|(_, count)| count.total > 0);
        let evidence: Vec<String> =
            evidence.map(|(evidence, count)| format!("{evidence} {}", count.total)).collect();
        let [active, total, seen] = count_cells(usage.assigned, report.time);
        let [possible, possible_total, possible_seen] = count_cells(usage.possible, report.time);
        rows.push([
            usage.name.to_owned(),
            usage.releases.join(", "),
            active,
            total,
            seen,
            possible,
            possible_total,
            possible_seen,
            evidence.join(", "),
        ]);
    }
    let others = [
        ("signaller", report.signaller.served, report.signaller.count),
        ("(not recognised)", true, report.unrecognised),
    ];
    for (name, served, count) in others {
        if served || count.total > 0 {
            let [active, total, seen] = count_cells(count, report.time);
            let mut row = [const { String::new() }; 9];
            row[0] = name.to_owned();
            (row[2], row[3], row[4]) = (active, total, seen);
            rows.push(row);
        }
    }
    rows
}

fn count_cells(count: CountReport, time: UnixSeconds) -> [String; 3] {
    let seen = match count.last_seen {
        _ if count.active > 0 => "now".to_owned(),
        None => "never".to_owned(),
        Some(last_seen) => format!("{} ago", last_seen.age(time)),
    };
    [count.active.to_string(), count.total.to_string(), seen]
}

fn push_rooms(out: &mut String, rooms: &RoomsReport) {
    let _ = writeln!(
        out,
        "\nrooms: {}; {} with more than one dialect, {} with more than one generation of clients ({} ever)",
        rooms.total, rooms.mixed, rooms.mixed_generations, rooms.mixed_generations_ever
    );
    let shown = if rooms.list_all { rooms.list.len() } else { MAX_ROOMS };
    for summary in rooms.list.iter().take(shown) {
        let peers: Vec<String> =
            summary.peers.iter().map(|(dialect, count)| format!("{dialect} {count}")).collect();
        let generations = match summary.generations {
            0 | 1 => String::new(),
            many => format!(" ({many} generations)"),
        };
        let _ = writeln!(out, "{:08x}  {}{generations}", summary.room, peers.join(", "));
    }
    if rooms.list.len() > shown {
        let _ = writeln!(out, "and {} more: sigver status --rooms", rooms.list.len() - shown);
    }
}

fn connection_row(connection: &ConnectionReport) -> [String; 5] {
    [
        connection.id.to_string(),
        connection.since.to_string(),
        connection.dialect.unwrap_or("?").to_owned(),
        connection.evidence.map(|evidence| evidence.to_string()).unwrap_or_default(),
        connection.releases.join(", "),
    ]
}

/// Appends a table whose columns are as wide as their widest cell.
fn push_table<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default());
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
