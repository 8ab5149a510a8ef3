//! The metrics, in the text format of Prometheus: all that is counted, read when it is asked for.

mod cluster;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process_stats::ProcessStats;
use super::{StatusQuery, StatusService};
use crate::config::Config;
use crate::protocol::dialect::Dialect;
use crate::server::conn::Shared;
use crate::server::telemetry::{ClusterReport, Report, UnixSeconds};
use crate::server::tls::CertificateExpiry;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label of clients without a recognised dialect.
const UNRECOGNISED: &str = "unrecognised";

/// A metric with its samples.
struct MetricFamily {
    name: &'static str,
    kind: MetricType,
    /// Names of the labels.
    labels: &'static [&'static str],
    help: &'static str,
    samples: Samples,
}

enum Samples {
    /// Values, each with the values of its labels.
    Values(Vec<(Vec<String>, u64)>),
    /// Ends of connections, of the activity.
    Ends,
    /// Times to recognition, of the activity.
    Recognitions,
    /// Times without labels.
    Times(Histogram),
    /// A time, in seconds.
    Seconds(f64),
}

/// The metrics of one server at one time.
#[derive(Debug)]
struct Scrape {
    report: Report,
    certificate_expiry: Option<CertificateExpiry>,
    shared: Arc<Shared>,
}

/// Returns the metrics.
pub(super) async fn render(status: &StatusService) -> String {
    let status = status.clone();
    // On a thread of its own, as a walk through many rooms would delay the connections.
    let rendered = tokio::task::spawn_blocking(move || {
        let scrape = Scrape::new(&status);
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(scrape));
        // Writing to a string cannot fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    });
    rendered.await.unwrap_or_default()
}

/// Returns the table of all metrics for docs/reference/metrics.md.
pub fn metrics_markdown() -> String {
    let mut config = Config::default();
    config.admin = config.listen.first().cloned();
    let shared = Shared::new(&config);
    let status = StatusService {
        shared,
        address: String::new(),
        signaller: true,
        log: Some(Arc::default()),
        bridge: None,
        tls: None,
    };
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let mut scrape = Scrape::new(&status);
    scrape.report.cluster = Some(ClusterReport::default());
    for family in scrape.families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, suffix) = match family.kind {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            _ => ("gauge", ""),
        };
        let _ = writeln!(
            table,
            "| `{}{suffix}` | {kind} | {} | {} |",
            family.name,
            labels.join(", "),
            family.help
        );
    }
    table
}

impl Scrape {
    fn new(status: &StatusService) -> Scrape {
        Scrape {
            report: status.report(StatusQuery::default()),
            certificate_expiry: status.certificate_expiry(),
            shared: Arc::clone(&status.shared),
        }
    }

    /// Returns all metrics, in the order of the reference.
    fn families(&self) -> Vec<MetricFamily> {
        let cluster = self.report.cluster.as_ref().map(cluster::families).unwrap_or_default();
        let parts = [
            self.server(),
            self.connections(),
            self.callout(),
            self.rooms(),
            self.bridge(),
            self.activity(),
            self.resources(),
            cluster,
        ];
        parts.into_iter().flatten().collect()
    }

    fn server(&self) -> Vec<MetricFamily> {
        let report = &self.report;
        vec![
            gauge("sigver_build_info", "Version of the program; the value is always 1.")
                .with(&["version"], [([report.version], 1)]),
            gauge("sigver_start_time_seconds", "Time at which counting began, in seconds since 1970.")
                .value(report.started.0),
            gauge("sigver_draining", "1 while the server is stopping and accepts no new clients, else 0.")
                .value(report.draining),
            gauge(
                "sigver_certificate_expiry_timestamp_seconds",
                "Time at which the certificate expires, in seconds since 1970; only with TLS.",
            )
            .with(&[], self.certificate_expiry.map(|CertificateExpiry(seconds)| ([], seconds))),
            counter("sigver_panics", "Connections that a bug of the server ended.").value(report.panics),
            counter("sigver_log_lines_dropped", "Log lines that were dropped, as stderr took no more.")
                .value(report.log.map_or(0, |log| log.dropped)),
            counter("sigver_log_lines_summed_up", "Repeated log lines of which the log has the number only.")
                .value(report.log.map_or(0, |log| log.summed_up)),
        ]
    }

    fn connections(&self) -> Vec<MetricFamily> {
        let report = &self.report;
        let others = [(UNRECOGNISED, report.unrecognised), ("signaller", report.signaller.count)];
        let usage = || {
            let dialects = report.dialects.iter().map(|dialect| (dialect.name, dialect.assigned));
            dialects.chain(others)
        };
        let by_evidence = report.dialects.iter().flat_map(|dialect| {
            let seen = dialect.by_evidence.iter().filter(|(_, count)| count.total > 0);
            seen.map(|(evidence, count)| ([dialect.name, evidence.name()], count.active))
        });
        vec![
            gauge("sigver_connections", "Open connections, by the dialect of the client.")
                .with(&["dialect"], usage().map(|(name, count)| ([name], count.active))),
            counter("sigver_connections_opened", "Connections since the start, without those of signaller.")
                .value(report.connections.total),
            gauge(
                "sigver_dialect_connections",
                "Connections since the start, by the dialect of the client. It falls when a dialect is corrected.",
            )
            .with(&["dialect"], usage().map(|(name, count)| ([name], count.total))),
            gauge(
                "sigver_dialect_last_seen_timestamp_seconds",
                "Time at which a client of the dialect was connected last, in seconds since 1970.",
            )
            .with(
                &["dialect"],
                usage().filter_map(|(name, count)| {
                    count.last_seen.map(|UnixSeconds(seconds)| ([name], u64::from(seconds)))
                }),
            ),
            counter("sigver_refused", "Refused connections and requests, by cause.")
                .with(&["cause"], report.refused.iter().map(|(cause, count)| ([cause.name()], *count))),
            counter(
                "sigver_limit_reached",
                "Times that each limit was reached; of message_rate, pauses. See SECURITY.md for the limits.",
            )
            .with(&["limit"], report.limits.iter().map(|(kind, count)| ([kind.name()], count))),
            gauge("sigver_recognised_connections", "Open connections, by dialect and the evidence for it.")
                .with(&["dialect", "evidence"], by_evidence),
            MetricFamily {
                name: "sigver_recognition_seconds",
                kind: MetricType::Histogram,
                labels: &["evidence"],
                help: "Time from the upgrade until the dialect was recognised or corrected, by evidence.",
                samples: Samples::Recognitions,
            },
            MetricFamily {
                samples: Samples::Ends,
                ..counter(
                    "sigver_connection_ends",
                    "Ends of connections, by the side that ended them and the reason; limits are reasons of \
                     the server.",
                )
                .with(&["side", "reason"], [] as [([&str; 2], u64); 0])
            },
        ]
    }

    fn callout(&self) -> Vec<MetricFamily> {
        let counts = &self.shared.telemetry.callout;
        let clients = [("cached", &counts.cached), ("shared", &counts.shared), ("paused", &counts.paused)];
        let questions = [
            ("answered", &counts.answered),
            ("failed", &counts.failed),
            ("crowded_out", &counts.crowded_out),
        ];
        vec![
            counter(
                "sigver_auth_callout_questions",
                "Questions to the program of --auth callout, by their result; crowded_out had no turn in time.",
            )
            .with(&["result"], questions.map(|(result, count)| ([result], count.get()))),
            counter(
                "sigver_auth_callout_clients",
                "Clients without a question of their own: by an answer that was kept, by the question of another \
                 one, or refused while the program is not asked for their address.",
            )
            .with(&["by"], clients.map(|(by, count)| ([by], count.get()))),
            gauge(
                "sigver_auth_callout_silent",
                "1 from five questions in a row without an answer of the program of --auth callout until its next answer, else 0.",
            )
            .value(counts.is_silent()),
        ]
    }

    fn rooms(&self) -> Vec<MetricFamily> {
        let rooms = &self.report.rooms;
        let by_dialect = rooms.by_dialect.iter().map(|(dialect, count)| ([dialect.name()], *count as u64));
        let links = rooms.links.0.iter();
        let links = links.map(|((joiner, member), count)| ([label(*joiner), label(*member)], *count as u64));
        vec![
            gauge("sigver_rooms", "Rooms.").value(rooms.total as u64),
            gauge("sigver_rooms_with_dialect", "Rooms with a client of the dialect.")
                .with(&["dialect"], by_dialect),
            gauge("sigver_mixed_rooms", "Rooms with clients of more than one dialect.")
                .value(rooms.mixed as u64),
            gauge(
                "sigver_mixed_generation_rooms",
                "Rooms with clients of more than one generation, whose data channels differ.",
            )
            .value(rooms.mixed_generations as u64),
            counter(
                "sigver_mixed_generation_rooms_seen",
                "Rooms since the start in which clients of different generations were connected to one another.",
            )
            .value(rooms.mixed_generations_ever),
            gauge("sigver_links", "Links of joiners and members, by the dialects of both.")
                .with(&["joiner", "member"], links),
        ]
    }

    fn bridge(&self) -> Vec<MetricFamily> {
        let bridge = self.report.bridge.unwrap_or_default();
        let process = bridge.process;
        vec![
            gauge("sigver_bridge_connected", "1 while a bridge is connected, else 0.")
                .value(bridge.connected),
            counter("sigver_bridge_connections", "Connections of a bridge since the start.")
                .value(bridge.connections),
            gauge("sigver_bridged_keys", "Keys whose rooms are bridged at this time.").value(bridge.keys),
            gauge("sigver_bridged_members", "Members of rooms with such keys, as the bridge knows them.")
                .value(bridge.members),
            counter("sigver_bridge_negotiations", "Negotiations of the bridge, by the side that began them.")
                .with(&["from"], [(["bridge"], bridge.calls), (["client"], bridge.callers)]),
            counter(
                "sigver_bridge_negotiations_failed",
                "Negotiations that ended before both sides had sent their session descriptions.",
            )
            .value(bridge.failed_calls),
            gauge("sigver_bridge_channels", "Connections of the bridge to clients.").value(process.channels),
            gauge("sigver_bridge_waiting_bytes", "Bytes that wait for channels of the bridge.")
                .value(process.waiting_bytes),
            counter("sigver_bridge_channels_opened", "Channels that the bridge opened since it started.")
                .value(process.opened),
            counter(
                "sigver_bridge_channels_lost",
                "Channels that ended before the bridge closed them, and connections that were not made, by cause.",
            )
            .with(
                &["cause"],
                [
                    (["closed"], process.closed),
                    (["silent"], process.silent),
                    (["overfull"], process.overfull),
                    (["refused"], process.refused),
                    (["failed"], process.failed),
                    (["unpaired"], process.cut),
                    (["rate"], process.too_fast),
                    (["members"], process.unbridged),
                ],
            ),
            counter("sigver_bridge_messages", "Messages carried between generations since the bridge started.")
                .value(process.messages),
            counter("sigver_bridge_message_bytes", "Bytes of these messages.").value(process.message_bytes),
            counter("sigver_bridge_messages_dropped", "Messages that were too long or out of order.")
                .value(process.dropped),
            counter(
                "sigver_bridge_frames_delayed",
                "Frames of messages that waited, because their sender or the room sent more than may be carried.",
            )
            .value(process.delayed),
            counter("sigver_bridge_unknown_packets", "UDP packets that belonged to no connection.")
                .value(process.unknown_packets),
        ]
    }

    fn activity(&self) -> Vec<MetricFamily> {
        let activity = self.shared.activity.as_ref();
        let relayed = activity.map(|activity| activity.relayed()).unwrap_or_default();
        let labels: &[&str] = &["sender", "receiver"];
        let samples = |value: fn(u64, u64) -> u64| {
            let pairs = relayed.iter();
            pairs
                .map(move |pair| {
                    ([label(pair.sender), label(pair.receiver)], value(pair.messages, pair.bytes))
                })
                .collect::<Vec<_>>()
        };
        vec![
            counter("sigver_relayed_messages", "Relayed messages, by the dialects of sender and receiver.")
                .with(labels, samples(|messages, _| messages)),
            counter("sigver_relayed_bytes", "Payload of relayed messages, by the dialects of both.")
                .with(labels, samples(|_, bytes| bytes)),
            gauge("sigver_longest_queue_bytes", "Longest send queue of a client since the start.")
                .value(activity.map_or(0, |activity| activity.longest_queue())),
            gauge("sigver_queue_limit_bytes", "Longest send queue that a client may have (--max-pending).")
                .value(self.shared.limits.max_pending as u64),
        ]
    }

    fn resources(&self) -> Vec<MetricFamily> {
        let (memory, process) = (&self.shared.memory, ProcessStats::read());
        vec![
            gauge("sigver_held_bytes", "Memory held for what clients sent in part or do not read.")
                .value(memory.used() as u64),
            gauge("sigver_held_limit_bytes", "Limit of that memory.").value(memory.limit() as u64),
            gauge("process_resident_memory_bytes", "Memory of the process.").value(process.resident_bytes),
            gauge("process_open_fds", "Open file descriptors.").value(process.open_fds),
            gauge("process_max_fds", "Limit of open file descriptors.").value(process.max_fds),
        ]
    }

    fn encode_family(&self, family: &MetricFamily, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
        match (&family.samples, &self.shared.activity) {
            (Samples::Ends, Some(activity)) => activity.ends().encode(metric),
            (Samples::Recognitions, Some(activity)) => activity.recognitions().encode(metric),
            (Samples::Ends | Samples::Recognitions, None) => Ok(()),
            (Samples::Times(times), _) => times.encode(metric),
            (Samples::Seconds(seconds), _) => metric.encode_gauge(seconds),
            (Samples::Values(samples), _) => {
                for (values, value) in samples {
                    let labels: Vec<(&str, &String)> = family.labels.iter().copied().zip(values).collect();
                    let mut sample = metric.encode_family(&labels)?;
                    match family.kind {
                        MetricType::Counter => sample.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                        _ => sample.encode_gauge(value)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.families().iter().try_for_each(|family| self.encode_family(family, &mut encoder))
    }
}

impl MetricFamily {
    /// Returns the metric with the one value that it has.
    fn value(self, value: impl Into<u64>) -> MetricFamily {
        MetricFamily { samples: Samples::Values(vec![(Vec::new(), value.into())]), ..self }
    }

    /// Returns the metric with values by labels.
    fn with<'a, const N: usize>(
        self,
        labels: &'static [&'static str],
        samples: impl IntoIterator<Item = ([&'a str; N], u64)>,
    ) -> MetricFamily {
        let samples = samples.into_iter().map(|(values, value)| (values.map(str::to_owned).to_vec(), value));
        MetricFamily { labels, samples: Samples::Values(samples.collect()), ..self }
    }
}

fn gauge(name: &'static str, help: &'static str) -> MetricFamily {
    MetricFamily { name, kind: MetricType::Gauge, labels: &[], help, samples: Samples::Values(Vec::new()) }
}

fn counter(name: &'static str, help: &'static str) -> MetricFamily {
    MetricFamily { kind: MetricType::Counter, ..gauge(name, help) }
}

fn label(dialect: Option<Dialect>) -> &'static str {
    dialect.map_or(UNRECOGNISED, Dialect::name)
}
