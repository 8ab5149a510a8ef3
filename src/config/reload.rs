//! The difference of two configurations by option, and the part of one that a running gateway can adopt.

use super::{Config, DetectionTimeouts, PipeLimits, ServerLimits, SignallerConfig, TlsFiles};

impl Config {
    /// Returns the long names of the options by which this configuration differs from another one. Settings
    /// that have no option are left out.
    pub(crate) fn differing_options(&self, other: &Config) -> Vec<&'static str> {
        // Taken apart, so that a new setting does not compile until it has a name here.
        let Config {
            listen,
            tls,
            protocol,
            max_message,
            max_pending,
            limits,
            transcode,
            rooms,
            detection,
            ping_after: _,
            stall_timeout: _,
            drain_timeout,
            log,
            log_format,
            log_ip,
            admin_socket,
            admin,
            transports,
            signaller,
            access,
            bridge,
            cluster,
        } = self;
        let settings = [
            ("listen", *listen != other.listen),
            ("protocol", *protocol != other.protocol),
            ("drain-timeout", *drain_timeout != other.drain_timeout),
            ("log", *log != other.log),
            ("log-format", *log_format != other.log_format),
            ("log-ip", *log_ip != other.log_ip),
            ("control", *admin_socket != other.admin_socket),
            ("transcode", *transcode != other.transcode),
            ("rooms", *rooms != other.rooms),
            ("admin", *admin != other.admin),
            ("max-message", *max_message != other.max_message),
            ("max-pending", *max_pending != other.max_pending),
            ("type", *transports != other.transports),
        ];
        let parts = [
            &settings[..],
            &tls_options(tls.as_ref(), other.tls.as_ref()),
            &detection_options(*detection, other.detection),
            &limit_options(limits, &other.limits),
            &signaller_options(signaller, &other.signaller),
            &access.differences(&other.access),
            &bridge.differences(&other.bridge),
            &cluster.differences(&other.cluster),
        ];
        parts.concat().into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Takes over from `newer` what a running gateway can adopt.
    pub(crate) fn adopt(&mut self, newer: &Config) {
        if self.tls.is_some() && newer.tls.is_some() {
            self.tls = newer.tls.clone();
        }
        self.access.adopt(&newer.access);
        self.log = newer.log.clone();
        self.drain_timeout = newer.drain_timeout;
        self.log_ip = newer.log_ip;
        // Those of the memory are part of what is held already.
        self.limits = ServerLimits {
            max_memory: self.limits.max_memory,
            max_buffered: self.limits.max_buffered,
            ..newer.limits.clone()
        };
    }
}

fn tls_options(one: Option<&TlsFiles>, other: Option<&TlsFiles>) -> [(&'static str, bool); 4] {
    let client_ca = |files: Option<&TlsFiles>| files.and_then(|files| files.client_ca.clone());
    [
        ("client-ca", client_ca(one) != client_ca(other)),
        ("key", one.map(|files| &files.key) != other.map(|files| &files.key)),
        ("cert", one.map(|files| &files.cert) != other.map(|files| &files.cert)),
        ("ca", one.and_then(|files| files.ca.as_ref()) != other.and_then(|files| files.ca.as_ref())),
    ]
}

fn detection_options(one: DetectionTimeouts, other: DetectionTimeouts) -> [(&'static str, bool); 3] {
    let DetectionTimeouts { margin, silence, first_frame } = one;
    [
        ("silence-margin", margin != other.margin),
        ("silence-max", silence != other.silence),
        ("first-frame-timeout", first_frame != other.first_frame),
    ]
}

fn limit_options(one: &ServerLimits, other: &ServerLimits) -> [(&'static str, bool); 14] {
    let ServerLimits {
        max_connections,
        max_connections_per_address,
        max_connection_rate,
        max_streams_per_address,
        tls_timeout,
        head_timeout,
        max_message_rate,
        max_byte_rate,
        max_rooms,
        max_rooms_per_connection,
        max_members,
        max_joiners,
        replace_members,
        max_memory,
        max_buffered: _,
    } = one;
    [
        ("max-connections", *max_connections != other.max_connections),
        ("max-connections-per-address", *max_connections_per_address != other.max_connections_per_address),
        ("max-connection-rate", *max_connection_rate != other.max_connection_rate),
        ("max-streams-per-address", *max_streams_per_address != other.max_streams_per_address),
        ("tls-timeout", *tls_timeout != other.tls_timeout),
        ("head-timeout", *head_timeout != other.head_timeout),
        ("max-message-rate", *max_message_rate != other.max_message_rate),
        ("max-byte-rate", *max_byte_rate != other.max_byte_rate),
        ("max-rooms", *max_rooms != other.max_rooms),
        ("max-rooms-per-connection", *max_rooms_per_connection != other.max_rooms_per_connection),
        ("max-members", *max_members != other.max_members),
        ("max-joiners", *max_joiners != other.max_joiners),
        ("replace-members", *replace_members != other.replace_members),
        ("max-memory", *max_memory != other.max_memory),
    ]
}

fn signaller_options(one: &SignallerConfig, other: &SignallerConfig) -> [(&'static str, bool); 5] {
    let SignallerConfig { origin, limits } = one;
    let PipeLimits { listen_deadline, pipe_deadline, max_size, max_messages } = limits;
    let others = &other.limits;
    [
        ("signaller-origin", *origin != other.origin),
        ("signaller-listen-deadline", *listen_deadline != others.listen_deadline),
        ("signaller-pipe-deadline", *pipe_deadline != others.pipe_deadline),
        ("signaller-max-size", *max_size != others.max_size),
        ("signaller-max-messages", *max_messages != others.max_messages),
    ]
}
