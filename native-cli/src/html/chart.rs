//! Charts as numbers: positions in percent of the drawing, so that text keeps its size whatever the width of the window is.

use super::units::{cut, digits, short, thousands};
use nemoflash_bench::report::Summary;
use serde::Serialize;

/// Number of colours. A letter, and in line charts a marker, comes with each colour, so that no series is marked by colour
/// alone.
const COLOURS: usize = 8;
/// Shapes of markers.
const MARKERS: [&str; 4] = ["circle", "square", "triangle", "diamond"];
/// Ratio of the largest to the smallest value from which an axis is logarithmic.
const WIDE: f64 = 12.0;
/// Shortest bar, as a share of the axis, that is long enough to show its interval.
const ROOM: f64 = 0.06;
/// Shortest bar that can be seen, as a share of the axis.
const LEAST: f64 = 0.005;
/// Longest name at the end of a line, in characters.
const END: usize = 22;
/// Least distance of two labels at the end of lines, in percent of the height.
const APART: f64 = 7.0;

/// How a series of a chart looks: a column of `compare`, or a block or a stack of `profile`.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    letter: String,
    /// The name of the series, such as that of the adapter.
    name: String,
    /// The rest of the label.
    more: String,
    label: String,
    colour: usize,
    marker: &'static str,
}

impl Key {
    /// The look of the series at this index of a list.
    pub fn new(at: usize, letter: &str, name: &str, more: &str, label: &str) -> Key {
        let [letter, name, more, label] = [letter, name, more, label].map(str::to_owned);
        Key { letter, name, more, label, colour: at % COLOURS, marker: MARKERS[at % MARKERS.len()] }
    }
}

/// Horizontal bars from zero.
#[derive(Debug, Serialize)]
pub struct Bars {
    /// The title.
    pub title: String,
    /// What the values are, and whether more or less is better.
    pub caption: String,
    /// From top to bottom.
    pub rows: Vec<Bar>,
}

/// A bar.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// The series that it belongs to.
    pub key: Key,
    /// Position of its end. None if there is no value.
    pub end: Option<String>,
    /// Positions of the ends of its interval.
    pub whisker: Option<[String; 2]>,
    /// The value as text.
    pub value: String,
    /// Its interval as text.
    pub interval: String,
    /// The verdict or the remark beside the bar.
    pub note: String,
    /// Tone of the note: `better`, `bad` or empty.
    pub tone: &'static str,
}

impl Bar {
    /// A bar of `value` on an axis up to `most`, with the interval if there is room to see it.
    pub fn of(key: Key, value: Option<Summary>, most: f64) -> Bar {
        let at = |x: f64| percent(x / most);
        Bar {
            key,
            end: value.map(|value| at(value.median.max(most * LEAST))),
            whisker: value.filter(|value| value.low / most > ROOM).map(|value| [at(value.low), at(value.high)]),
            value: String::new(),
            interval: String::new(),
            note: String::new(),
            tone: "",
        }
    }
}

/// A share as a position in a drawing, in percent.
pub fn percent(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.2}%", share * 100.0)
}

/// The texts of a line chart and of the table below it, and the scale of its axes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Names {
    /// What each line stands for, as the head of the table's first column.
    pub who: &'static str,
    /// Name of the axis from left to right.
    pub x: &'static str,
    /// Name of the axis from bottom to top.
    pub y: &'static str,
    /// Unit of the y axis, which follows a number.
    pub unit: &'static str,
    /// Scale of the axes.
    pub scale: Scale,
}

/// Scale of the axes of a line chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Scale {
    /// The x values are evenly spaced. The y axis begins at 0, or is logarithmic if the values lie far apart.
    Even,
    /// The x values are evenly spaced. The y axis is linear and covers only the range of the values.
    Near,
    /// Both axes are linear and cover only the range of the values.
    Both,
}

/// Lines over an axis of numbers.
#[derive(Debug, Serialize)]
pub struct Lines {
    /// The title.
    pub title: String,
    /// Name of the x axis.
    pub x: String,
    /// Name of the y axis.
    pub y: String,
    names: Names,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: String,
    label: String,
}

#[derive(Debug, Serialize)]
struct Series {
    key: Key,
    dots: Vec<Dot>,
    /// Vertical position of the label at the end of the line.
    label_at: String,
    /// The name of the series, shortened to fit.
    name: String,
    /// The last value as text.
    last: String,
}

#[derive(Debug, Serialize)]
struct Dot {
    x: String,
    y: String,
    low: String,
    high: String,
    /// Texts for the table: x, y and the interval of y.
    texts: [String; 3],
}

/// The values of a series: (x, y, low, high), sorted by x.
pub type Values = Vec<[f64; 4]>;

impl Lines {
    /// Makes a chart whose axes fit all series.
    pub fn new(title: String, names: Names, mut data: Vec<(Key, Values)>) -> Lines {
        data.retain(|(_, values)| !values.is_empty());
        let all = || data.iter().flat_map(|(_, values)| values);
        let most = all().map(|v| v[3]).fold(0.0, f64::max);
        let least = all().map(|v| v[2]).filter(|&low| low > 0.0).fold(f64::INFINITY, f64::min);
        let near = names.scale != Scale::Even && least.is_finite();
        let axis = if near { Axis::near(least, most) } else { Axis::new(least, most) };
        let mut xs: Vec<f64> = all().map(|v| v[0]).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let wide = match (names.scale, &xs[..]) {
            (Scale::Both, [first, .., last]) => Some(Axis::near(*first, *last)),
            _ => None,
        };
        // Depths grow by powers and begin at 0, so each gets the same distance from the next.
        let even = |x: f64| xs.iter().position(|&other| other == x).unwrap_or(0) as f64 / (xs.len().max(2) - 1) as f64;
        let across = |x: f64| wide.as_ref().map_or_else(|| even(x), |wide| wide.place(x));
        let number = |x: f64| if wide.is_some() { digits(x) } else { thousands(x) };
        let series = data.into_iter().map(|(key, values)| {
            let dot = |&[x, y, low, high]: &[f64; 4]| Dot {
                x: percent(across(x)),
                y: percent(1.0 - axis.place(y)),
                low: percent(1.0 - axis.place(low)),
                high: percent(1.0 - axis.place(high)),
                texts: [number(x), digits(y), format!("{} to {}", digits(low), digits(high))],
            };
            let end = values.last().map_or(0.0, |v| v[1]);
            let dots = values.iter().map(dot).collect();
            let name = cut(&key.name, END);
            (100.0 * (1.0 - axis.place(end)), Series { key, dots, label_at: String::new(), name, last: digits(end) })
        });
        let mut series: Vec<(f64, Series)> = series.collect();
        spread(&mut series);
        let y_ticks = axis.ticks().into_iter().map(|at| Tick { at: percent(1.0 - axis.place(at)), label: short(at) });
        let y = if axis.log { format!("{}, logarithmic", names.y) } else { names.y.to_owned() };
        Lines {
            title,
            x: if wide.is_some() { names.x.to_owned() } else { format!("{}, evenly spaced", names.x) },
            y,
            names,
            x_ticks: wide
                .as_ref()
                .map_or_else(|| xs.clone(), Axis::ticks)
                .into_iter()
                .map(|x| Tick { at: percent(across(x)), label: if wide.is_some() { short(x) } else { thousands(x) } })
                .collect(),
            y_ticks: y_ticks.collect(),
            series: series.into_iter().map(|(_, series)| series).collect(),
        }
    }
}

/// Moves labels apart that would overlap: first downwards, and then upwards from the bottom.
fn spread(series: &mut [(f64, Series)]) {
    series.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut places: Vec<f64> = series.iter().map(|(at, _)| *at).collect();
    for at in 1..places.len() {
        places[at] = places[at].max(places[at - 1] + APART);
    }
    let mut most = 100.0;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - APART;
    }
    for ((_, series), place) in series.iter_mut().zip(places) {
        series.label_at = percent(place / 100.0);
    }
}

/// An axis of positive numbers.
#[derive(Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    /// Whether it is logarithmic.
    pub log: bool,
}

impl Axis {
    /// An axis that covers only the range from `least` to `most`.
    pub fn near(least: f64, most: f64) -> Axis {
        let room = (most - least).max(most.abs() * 1e-3).max(f64::MIN_POSITIVE) * 0.08;
        Axis { low: (least - room).max(0.0), high: most + room, log: false }
    }

    /// An axis for numbers from `least` to `most`. It begins at 0, or is logarithmic if they lie far apart.
    pub fn new(least: f64, most: f64) -> Axis {
        let log = least > 0.0 && most / least >= WIDE && most.is_finite();
        match log {
            true => Axis { low: least / 1.25, high: most * 1.1, log },
            false => Axis { low: 0.0, high: if most > 0.0 { most * 1.08 } else { 1.0 }, log },
        }
    }

    /// The position of a number, from 0 to 1.
    pub fn place(&self, value: f64) -> f64 {
        match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Round numbers for the labels of the axis.
    pub fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = match decades {
                few if few < 1.6 => &[1.0, 2.0, 5.0],
                some if some < 3.2 => &[1.0, 3.0],
                _ => &[1.0],
            };
            let every = (decades / 6.0).ceil().max(1.0) as usize;
            let exponents = (self.low.log10().floor() as i32..=self.high.log10().ceil() as i32).step_by(every);
            let all = exponents.flat_map(|exponent| steps.iter().map(move |step| step * 10f64.powi(exponent)));
            return all.filter(|at| (self.low..=self.high).contains(at)).collect();
        }
        let rough = (self.high - self.low) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
        let step = step.unwrap_or(power * 10.0);
        let first = (self.low / step).ceil();
        (0..=5).map(|n| (first + f64::from(n)) * step).filter(|at| *at <= self.high).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_fit() {
        let linear = Axis::new(3.0, 9.0);
        assert!(!linear.log && linear.place(0.0) == 0.0 && linear.place(9.0) < 1.0);
        assert_eq!(linear.ticks(), [0.0, 2.5, 5.0, 7.5]);
        let near = Axis::near(2.61, 3.35);
        assert!(near.place(2.61) > 0.0 && near.place(3.35) < 1.0);
        assert_eq!(near.ticks().iter().map(|at| short(*at)).collect::<Vec<_>>(), ["2.75", "3", "3.25"]);
        let log = Axis::new(1.0, 300.0);
        assert!(log.log && log.place(1.0) > 0.0 && log.place(300.0) < 1.0);
        assert_eq!(log.ticks(), [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]);
        // Ranges that no chart has.
        for (least, most) in [(f64::INFINITY, 0.0), (1e-308, 1e308), (1e-320, 1e300), (1e308, 1e308), (0.0, 5e-324)] {
            let axis = Axis::new(least, most);
            assert!(axis.ticks().len() < 20, "{axis:?}");
            percent(axis.place(most));
            let axis = Axis::near(least.min(most), most);
            assert!(axis.ticks().len() < 20, "{axis:?}");
        }
    }

    #[test]
    fn labels_do_not_overlap() {
        let columns: Vec<_> =
            (0..9).map(|n| (Key::new(0, &n.to_string(), "", "", ""), vec![[0.0, 5.0, 5.0, 5.0]])).collect();
        let names = Names { who: "", x: "", y: "", unit: "", scale: Scale::Even };
        let lines = Lines::new(String::new(), names, columns);
        let places: Vec<f64> = lines.series.iter().map(|s| s.label_at.trim_end_matches('%').parse().unwrap()).collect();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] > APART - 0.1), "{places:?}");
    }
}
