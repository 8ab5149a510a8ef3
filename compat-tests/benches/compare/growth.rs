//! Growth of the gateway's costs with connections, rooms, joiners of a room, and content size. Each point
//! is the median of several turns, each with a server of its own. Drawing is in `plot`.

use std::path::Path;

use anyhow::{Context, Result};
use compat_tests::summary::Summary;
use serde::Serialize;

use crate::drive::{self, Measure};
use crate::figures::{Figure, Sample, digits};
use crate::plot::{self, Plot};
use crate::servers::{Party, Servers};
use crate::works::{Connected, Load, relay};

/// A growing quantity, and the sizes at which it is measured.
struct Series {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    sizes: &'static [usize],
    load: fn(usize) -> Load,
    /// Figures to draw, with their labels.
    drawn: &'static [(Figure, &'static str)],
    y: &'static str,
    /// Expected growth.
    linear: Linear,
    /// True if the bare relay is measured at the same sizes.
    bare: bool,
    /// Further figures in the table.
    further: &'static [(Figure, &'static str)],
}

/// Growth of a figure if each unit costs the same.
#[derive(Clone, Copy)]
enum Linear {
    /// Constant.
    Same,
    /// Proportional to the size, plus a constant.
    Affine,
}

/// Figures at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Name of the series.
    pub series: &'static str,
    /// Size.
    pub size: usize,
    /// Medians.
    pub figures: Sample,
}

const SERIES: &[Series] = &[
    Series {
        name: "members",
        title: "Idle members, each in a room of its own",
        x: "members",
        sizes: &[100, 300, 1_000, 3_000, 6_000, 10_000, 14_000, 18_000],
        load: Load::Idle,
        drawn: &[(Figure::Held, "memory beyond that at start, MB"), (Figure::Beats, "CPU, ms/s")],
        y: "MB, ms/s",
        linear: Linear::Affine,
        bare: false,
        further: &[
            (Figure::Member, "kB of memory for each"),
            (Figure::Kernel, "kB of the system's for each"),
            (Figure::Heartbeats, "µs of CPU/s for each"),
        ],
    },
    Series {
        name: "rooms",
        title: "Relay, 1 in flight in each room, 64 bytes",
        x: "rooms",
        sizes: &[10, 30, 100, 300, 1_000, 3_000, 6_000, 9_000],
        load: |rooms| Load::Throughput(relay(rooms, 1, 64)),
        drawn: &[(Figure::Cost, "CPU for a message, µs")],
        y: "µs",
        linear: Linear::Same,
        bare: true,
        further: &[],
    },
    Series {
        name: "joiners",
        title: "Joiners at once into one room",
        x: "joiners",
        sizes: &[1, 10, 30, 100, 300, 1_000, 2_000, 3_000, 5_000],
        load: |joiners| Load::Storm(joiners, Connected::After),
        drawn: &[(Figure::Storm, "until all are answered, ms"), (Figure::StormCost, "CPU of the server, ms")],
        y: "ms",
        linear: Linear::Affine,
        bare: false,
        further: &[],
    },
    Series {
        name: "payload",
        title: "Relay, 50 rooms, 1 in flight",
        x: "bytes of a content",
        sizes: &[64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576],
        load: |bytes| Load::Throughput(relay(50, 1, bytes)),
        drawn: &[(Figure::Cost, "CPU for a message, µs")],
        y: "µs",
        linear: Linear::Affine,
        bare: true,
        further: &[],
    },
];

/// Measures all series, draws them into a folder, and returns them as Markdown.
pub async fn growth(
    servers: &Servers,
    measure: &Measure,
    turns: usize,
    only: &[String],
    folder: Option<&Path>,
) -> Result<(String, Vec<Point>)> {
    let (mut text, mut points) = (String::new(), Vec::new());
    let wanted = |series: &&Series| only.is_empty() || only.iter().any(|name| name == series.name);
    for series in SERIES.iter().filter(wanted) {
        let mut own = Vec::new();
        for size in series.sizes {
            eprintln!("{}: {size}", series.name);
            let mut samples = Vec::new();
            for _ in 0..turns {
                samples.push(
                    sample(servers, series, *size, measure)
                        .await
                        .with_context(|| format!("{} at {size}", series.name))?,
                );
            }
            own.push(Point { series: series.name, size: *size, figures: medians(&samples) });
        }
        text.push_str(&further(series, &own));
        if let Some(folder) = folder {
            let name = format!("growth-{}.svg", series.name);
            plots(&folder.join(&name), series, &own)?;
            text.push_str(&format!("![{}, by {}]({name})\n\n", series.title, series.x));
        }
        points.extend(own);
    }
    text.push_str(&million(&points).unwrap_or_default());
    Ok((text, points))
}

/// Runs one turn of the gateway at one size, and of the bare relay where it is compared.
async fn sample(servers: &Servers, series: &Series, size: usize, measure: &Measure) -> Result<Sample> {
    let turn = async |party| {
        let started = servers.start(party).await?;
        drive::turn(&started, party, (series.load)(size), measure).await
    };
    let mut sample = turn(Party::OursForLarge).await?;
    if series.bare {
        let bare = turn(Party::Reference).await?;
        sample.extend(bare.get(&Figure::Cost).map(|cost| (Figure::BareCost, *cost)));
    }
    Ok(sample)
}

impl Series {
    /// Returns the drawn figures, in order.
    fn drawn(&self) -> impl Iterator<Item = (Figure, &'static str)> {
        let bare = self.bare.then_some((Figure::BareCost, "the same of a bare relay, µs"));
        self.drawn.iter().copied().chain(bare)
    }
}

/// Returns the extrapolated memory of a million idle members, from the cost of each further member.
fn million(points: &[Point]) -> Option<String> {
    let members: Vec<&Point> = points.iter().filter(|point| point.series == "members").collect();
    let most = members.iter().max_by_key(|point| point.size)?;
    // The base cost of the first connections does not count for each.
    let each = |figure| {
        let points: Vec<(f64, f64)> = members
            .iter()
            .filter_map(|point| Some((point.size as f64, *point.figures.get(&figure)?)))
            .collect();
        Some(affine(&points).1 * 1e3)
    };
    let (own, beats) = (each(Figure::Held)?, each(Figure::Beats)?);
    let system = *most.figures.get(&Figure::Kernel)?;
    // 1 kB for each of a million is 1 GB, 1 µs is 1 s.
    Some(format!(
        "### A million idle members\n\nBy the line through the figures up to {} members: {} GB of the server's memory ({} kB each), {} GB of \
         the system's ({} kB), and {} cores for heartbeats ({} µs/s).\n",
        most.size,
        digits(own),
        digits(own),
        digits(system),
        digits(system),
        digits(beats),
        digits(beats),
    ))
}

fn medians(samples: &[Sample]) -> Sample {
    let figures =
        samples.first().map(|sample| sample.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
    let median = |figure: Figure| {
        let values = samples.iter().filter_map(|sample| sample.get(&figure).copied()).collect();
        Summary::from_values(values).map(|summary| (figure, summary.median))
    };
    figures.into_iter().filter_map(median).collect()
}

/// Returns the figures of a series as a table.
fn further(series: &Series, points: &[Point]) -> String {
    let figures: Vec<(Figure, &str)> = series.drawn().chain(series.further.iter().copied()).collect();
    let mut text = format!("### {}\n\n| {} |", series.title, series.x);
    figures.iter().for_each(|(_, name)| text.push_str(&format!(" {name} |")));
    text.push_str("\n|--:|");
    figures.iter().for_each(|_| text.push_str("--:|"));
    for point in points {
        text.push_str(&format!("\n| {} |", point.size));
        for (figure, _) in &figures {
            let shown = point.figures.get(figure).map_or("–".into(), |value| digits(*value));
            text.push_str(&format!(" {shown} |"));
        }
    }
    text.push_str("\n\n");
    text
}

fn plots(path: &Path, series: &Series, points: &[Point]) -> Result<()> {
    let of = |(figure, name): (Figure, &'static str)| {
        let points: Vec<(f64, f64)> = points
            .iter()
            .filter_map(|point| Some((point.size as f64, *point.figures.get(&figure)?)))
            .filter(|(_, value)| *value > 0.0)
            .collect();
        let line = line(series.linear, &points);
        plot::Series { name, points, line }
    };
    let plot =
        Plot { title: series.title, x: series.x, y: series.y, series: series.drawn().map(of).collect() };
    plot::draw(path, &plot)
}

/// Returns the points of linear growth, fitted by ratios, as the axes are logarithmic.
fn line(linear: Linear, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let median = |values: Vec<f64>| Summary::from_values(values).map_or(0.0, |summary| summary.median);
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let (fixed, each) = match linear {
        Linear::Same => (median(points.iter().map(|point| point.1).collect()), 0.0),
        Linear::Affine => affine(points),
    };
    // An affine function is no straight line on logarithmic axes.
    const STEPS: u32 = 60;
    let step = |at: u32| first.0 * (last.0 / first.0).powf(f64::from(at) / f64::from(STEPS));
    (0..=STEPS).map(step).map(|x| (x, fixed + each * x)).filter(|point| point.1 > 0.0).collect()
}

/// Returns base cost and cost per unit, by least squares of relative errors.
fn affine(points: &[(f64, f64)]) -> (f64, f64) {
    let (mut ww, mut wx, mut wxx, mut wy, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points {
        let weight = 1.0 / (y * y);
        ww += weight;
        wx += weight * x;
        wxx += weight * x * x;
        wy += weight * y;
        wxy += weight * x * y;
    }
    let determinant = ww * wxx - wx * wx;
    if determinant.abs() < f64::MIN_POSITIVE {
        return (points.first().map_or(0.0, |point| point.1), 0.0);
    }
    ((wy * wxx - wx * wxy) / determinant, (ww * wxy - wx * wy) / determinant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_parsed_from_callgrind_output() {
        let points: Vec<(f64, f64)> = [1.0, 10.0, 1000.0].map(|x| (x, 5.0 + 2.0 * x)).into();
        let (fixed, each) = affine(&points);
        assert!((fixed - 5.0).abs() < 1e-6 && (each - 2.0).abs() < 1e-6, "{fixed} {each}");
        let line = line(Linear::Same, &[(10.0, 20.0), (100.0, 21.0), (1000.0, 22.0)]);
        assert_eq!((line[0], line.len()), ((10.0, 21.0), 61));
        assert!(super::line(Linear::Same, &[]).is_empty());
    }
}
