//! SVG plots of measured points, with the line of linear growth. Both axes are logarithmic. Colours suit
//! light and dark pages.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::FontTransform;

/// A plot.
pub struct Plot<'a> {
    /// Title.
    pub title: &'a str,
    /// Label of the growing quantity.
    pub x: &'a str,
    /// Label and unit of the measured quantity.
    pub y: &'a str,
    /// Series.
    pub series: Vec<Series<'a>>,
}

/// Points with their line.
pub struct Series<'a> {
    /// Label.
    pub name: &'a str,
    /// Measured points.
    pub points: Vec<(f64, f64)>,
    /// Points of linear growth.
    pub line: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (720, 420);
const LINE_COLOUR: RGBColor = RGBColor(128, 128, 128);
const SERIES_COLOURS: [RGBColor; 3] = [RGBColor(46, 134, 222), RGBColor(230, 126, 34), RGBColor(39, 174, 96)];

/// Draws a plot into a file.
pub fn draw(path: &Path, plot: &Plot<'_>) -> Result<()> {
    // The library's error types depend on its back ends.
    drawn(path, plot).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn drawn(path: &Path, plot: &Plot<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let all = || plot.series.iter().flat_map(|series| series.points.iter().chain(&series.line));
    let (x, y) = (around(all().map(|point| point.0), 1.15), around(all().map(|point| point.1), 1.5));
    // No background: it has the page's colour.
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let text = |size: i32| ("sans-serif", size).into_font().color(&LINE_COLOUR);
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .caption(plot.title, text(17))
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(LINE_COLOUR.mix(0.35))
        .light_line_style(LINE_COLOUR.mix(0.08))
        .axis_style(LINE_COLOUR)
        .x_desc(plot.x)
        .y_desc(plot.y)
        .label_style(text(13))
        .axis_desc_style(text(14))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (series, colour) in plot.series.iter().zip(SERIES_COLOURS) {
        chart.draw_series(LineSeries::new(series.line.iter().copied(), colour.mix(0.45).stroke_width(2)))?;
        chart
            .draw_series(series.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?
            .label(series.name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text(13).transform(FontTransform::None))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Returns a range around all values, with a margin.
fn around(values: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(least, most), value| (least.min(value), most.max(value)));
    if most == 0.0 { 1.0..10.0 } else { least / room..most * room }
}

/// Formats an axis label: 1000 is 1k.
fn short(value: f64) -> String {
    let (scaled, suffix) = match value {
        value if value >= 999_999.5 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = format!("{scaled:.3}");
    format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_labels_are_short() {
        let shown = [0.05, 1.0, 300.0, 1000.0, 18_000.0, 1_048_576.0].map(short);
        assert_eq!(shown, ["0.05", "1", "300", "1k", "18k", "1.049M"]);
    }

    #[test]
    fn plot_has_no_background_and_no_black() {
        let path = std::env::temp_dir().join(format!("plot-{}.svg", std::process::id()));
        let points = vec![(100.0, 1.0), (1_000.0, 11.0), (10_000.0, 95.0)];
        let line = vec![(100.0, 1.0), (10_000.0, 100.0)];
        let series = vec![Series { name: "memory", points, line }];
        draw(&path, &Plot { title: "t", x: "members", y: "MB", series }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("memory") && text.contains("10k"));
        assert!(!text.contains("#000000") && !text.contains("#FFFFFF"));
    }
}
