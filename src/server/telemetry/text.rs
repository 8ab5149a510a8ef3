//! The report for people: a table of dialects, the rooms, and the connections if asked for.

use std::fmt::Write as _;

use super::cluster_report::push_cluster;
use super::report::{ConnectionReport, CountReport, Report, RoomsReport};
use super::{BridgeReport, UnixSeconds};
use crate::text_table::{CellAlignment, text_table};

/// Number of rooms listed where not all are asked for.
const MAX_ROOMS: usize = 20;

/// Returns the report as lines of text, of 80 columns at most unless everything or a list is asked for.
pub(super) fn render(report: &Report) -> String {
    // Writing to a string does not fail.
    let mut out = format!(
        "sigver {} on {}, since {} ({} ago)\n{}connections of sigver clients: {} active, {} in total\n\n",
        report.version,
        report.address,
        report.started,
        report.started.age(report.time),
        if report.draining { "stopping: no new clients are accepted\n" } else { "" },
        report.connections.active,
        report.connections.total,
    );
    let rows = usage_rows(report);
    if rows.len() > 1 {
        push_table(&mut out, rows, report.all);
        out.push('\n');
    }
    push_rooms(&mut out, &report.rooms);
    if let Some(bridge) = &report.bridge {
        push_bridge(&mut out, bridge);
    }
    if let Some(cluster) = &report.cluster {
        push_cluster(&mut out, cluster);
    }
    let reached = report.limits.iter().filter(|(_, count)| *count > 0);
    let reached: Vec<String> =
        reached.map(|(kind, count)| format!("{} {count}", kind.name().replace('_', " "))).collect();
    if !reached.is_empty() {
        let _ = writeln!(out, "limits reached: {}", reached.join(", "));
    }
    push_troubles(&mut out, report);
    if let Some(expires) = report.certificate_expires {
        let _ = writeln!(out, "certificate: expires {expires}");
    }
    if let Some(connections) = &report.connection_list {
        out.push('\n');
        let header = ["connection", "since", "dialect", "evidence", "possible releases"];
        let rows = connections.iter().map(|connection| connection_row(connection).to_vec());
        let header = header.map(str::to_owned).to_vec();
        push_table(&mut out, std::iter::once(header).chain(rows).collect(), true);
    }
    out
}

/// Returns the header, and a row for each dialect that was seen; with everything, for each that is served as
/// well.
fn usage_rows(report: &Report) -> Vec<Vec<String>> {
    let mut header = vec!["dialect", "active", "total", "last seen", "possible"];
    if report.all {
        header.extend(["total", "last seen", "releases", "evidence"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for usage in &report.dialects {
        let is_seen = usage.assigned.total + usage.possible.total > 0;
        let is_shown = is_seen || (report.all && usage.served);
        if !is_shown {
            continue;
        }
        let mut row = vec![usage.name.to_owned()];
        row.extend(count_cells(usage.assigned, report.time));
        let possible = count_cells(usage.possible, report.time);
        if report.all {
            let evidence = usage.by_evidence.iter().filter(|(_, count)| count.total > 0);
            let evidence: Vec<String> =
                evidence.map(|(evidence, count)| format!("{evidence} {}", count.total)).collect();
            row.extend(possible);
            row.extend([usage.releases.join(", "), evidence.join(", ")]);
        } else {
            row.push(usage.possible.total.to_string());
        }
        rows.push(row);
    }
    let others = [
        ("signaller", report.signaller.served, report.signaller.count),
        ("(not recognised)", true, report.unrecognised),
    ];
    for (name, served, count) in others {
        if count.total > 0 || (report.all && served) {
            let mut row = vec![name.to_owned()];
            row.extend(count_cells(count, report.time));
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
    let _ = write!(out, "rooms: {}", rooms.total);
    if rooms.total > 0 {
        let _ = write!(
            out,
            "; {} with more than one dialect, {} with more than one generation",
            rooms.mixed, rooms.mixed_generations
        );
    }
    out.push('\n');
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
    if rooms.mixed_generations_ever > 0 {
        let _ = writeln!(
            out,
            "rooms since the start that connected different generations: {}",
            rooms.mixed_generations_ever
        );
    }
}

fn push_bridge(out: &mut String, bridge: &BridgeReport) {
    let BridgeReport { connected, connections, keys, members, calls, callers, failed_calls, process } =
        *bridge;
    let state = match (connected, connections) {
        (true, _) => format!("connected; members: {members}, under keys: {keys}"),
        (false, 0) => "not connected yet".to_owned(),
        (false, _) => "not connected".to_owned(),
    };
    let _ = writeln!(out, "bridge: {state}");
    if calls > 0 || callers > 0 {
        let _ = writeln!(out, "  negotiations: {}, failed: {failed_calls}", calls.saturating_add(callers));
    }
    if process.opened > 0 {
        let (channels, messages) = (process.channels, process.messages);
        let _ = writeln!(out, "  channels: {channels}, messages carried: {messages}");
    }
    let limited = [process.overfull, process.refused, process.cut, process.too_fast, process.unbridged];
    let limited = limited.into_iter().fold(0, u64::saturating_add);
    if limited > 0 {
        let _ = writeln!(out, "  channels and members ended or refused by limits: {limited}");
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

/// Appends what went wrong, if anything did.
fn push_troubles(out: &mut String, report: &Report) {
    if report.panics > 0 {
        let _ = writeln!(out, "connections ended by a bug of the server: {}", report.panics);
    }
    for (cause, count) in report.refused.iter().filter(|(_, count)| *count > 0) {
        let _ = writeln!(out, "refused: {count}, {}", cause.description());
    }
    if let Some(log) = report.log.filter(|log| log.dropped + log.summed_up > 0) {
        let _ = writeln!(out, "log: {} lines dropped, {} summed up", log.dropped, log.summed_up);
    }
}

/// Appends a table, without columns that are empty or zero throughout unless `all` are shown.
fn push_table(out: &mut String, mut rows: Vec<Vec<String>>, all: bool) {
    let columns = rows.first().map_or(0, Vec::len);
    rows.iter_mut().for_each(|row| row.resize(columns, String::new()));
    let is_shown =
        |column: usize| all || rows.iter().skip(1).any(|row| !matches!(&*row[column], "" | "0" | "never"));
    let shown: Vec<bool> = (0..columns).map(is_shown).collect();
    for row in &mut rows {
        let mut shown = shown.iter();
        row.retain(|_| shown.next() == Some(&true));
    }
    out.push_str(&text_table(&rows, CellAlignment::Left));
}
