package applet

import (
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// date prints the time in UTC: guests have no time zones.
func date(p *proc.Proc) int {
	f, rest, ok := parse(p, "uRI::d:D:r:s:", map[string]byte{"utc": 'u', "date": 'd', "rfc-2822": 'R', "iso-8601": 'I', "reference": 'r'})
	if !ok {
		return 1
	}
	if f.has('s') {
		p.Errorf("can't set date: Operation not permitted")
		return 1
	}
	when := time.Now().UTC()
	if name, ok := f.value('r'); ok {
		info, err := os.Stat(p.Path(name))
		if err != nil {
			p.Errorf("%s: %s", name, proc.Reason(err))
			return 1
		}
		when = info.ModTime().UTC()
	}
	if text, ok := f.value('d'); ok {
		if when, ok = parseDate(text); !ok {
			p.Errorf("invalid date '%s'", text)
			return 1
		}
	}
	format := "%a %b %e %H:%M:%S UTC %Y"
	switch {
	case f.has('R'):
		format = "%a, %d %b %Y %H:%M:%S +0000"
	case f.has('I'):
		format = "%Y-%m-%d"
		switch v, _ := f.value('I'); {
		case strings.HasPrefix(v, "s"):
			format = "%Y-%m-%dT%H:%M:%S+00:00"
		case strings.HasPrefix(v, "m"):
			format = "%Y-%m-%dT%H:%M+00:00"
		case strings.HasPrefix(v, "h"):
			format = "%Y-%m-%dT%H+00:00"
		}
	}
	if len(rest) > 0 {
		text, isFormat := strings.CutPrefix(rest[0], "+")
		if !isFormat || len(rest) > 1 {
			p.Errorf("invalid date '%s'", rest[0])
			return 1
		}
		format = text
	}
	io.WriteString(p.Stdout, strftime(format, when)+"\n")
	return 0
}

// parseDate reads the forms that scripts use; the time zone is UTC.
func parseDate(text string) (time.Time, bool) {
	if seconds, ok := strings.CutPrefix(text, "@"); ok {
		n, err := strconv.ParseInt(seconds, 10, 64)
		return time.Unix(n, 0).UTC(), err == nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", "2006-01-02T15:04:05", time.RFC3339,
		"200601021504.05", "200601021504", "2006.01.02-15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), true
		}
	}
	if t, err := time.Parse("15:04:05", text); err == nil {
		now := time.Now().UTC()
		return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC), true
	}
	return time.Time{}, false
}

func pad(n, width int, with string) string {
	text := strconv.Itoa(n)
	return strings.Repeat(with, max(0, width-len(text))) + text
}

func strftime(format string, t time.Time) string {
	var b strings.Builder
	hour12 := (t.Hour()+11)%12 + 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		padding, custom := "0", false
		if strings.IndexByte("-_0", format[i]) >= 0 && i+1 < len(format) {
			padding = map[byte]string{'-': "", '_': " ", '0': "0"}[format[i]]
			custom = true
			i++
		}
		num := func(n, width int) { b.WriteString(pad(n, width, padding)) }
		blank := func(n, width int) {
			if custom {
				num(n, width)
			} else {
				b.WriteString(pad(n, width, " "))
			}
		}
		switch c := format[i]; c {
		case '%':
			b.WriteByte('%')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'a':
			b.WriteString(t.Weekday().String()[:3])
		case 'A':
			b.WriteString(t.Weekday().String())
		case 'b', 'h':
			b.WriteString(t.Month().String()[:3])
		case 'B':
			b.WriteString(t.Month().String())
		case 'c':
			b.WriteString(strftime("%a %b %e %H:%M:%S %Y", t))
		case 'C':
			num(t.Year()/100, 2)
		case 'd':
			num(t.Day(), 2)
		case 'D', 'x':
			b.WriteString(strftime("%m/%d/%y", t))
		case 'e':
			blank(t.Day(), 2)
		case 'F':
			b.WriteString(strftime("%Y-%m-%d", t))
		case 'g', 'G', 'V':
			year, week := t.ISOWeek()
			switch c {
			case 'g':
				num(year%100, 2)
			case 'G':
				num(year, 4)
			default:
				num(week, 2)
			}
		case 'H':
			num(t.Hour(), 2)
		case 'I':
			num(hour12, 2)
		case 'j':
			num(t.YearDay(), 3)
		case 'k':
			blank(t.Hour(), 2)
		case 'l':
			blank(hour12, 2)
		case 'm':
			num(int(t.Month()), 2)
		case 'M':
			num(t.Minute(), 2)
		case 'N':
			num(t.Nanosecond(), 9)
		case 'p':
			b.WriteString(map[bool]string{true: "AM", false: "PM"}[t.Hour() < 12])
		case 'P':
			b.WriteString(map[bool]string{true: "am", false: "pm"}[t.Hour() < 12])
		case 'r':
			b.WriteString(strftime("%I:%M:%S %p", t))
		case 'R':
			b.WriteString(strftime("%H:%M", t))
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'S':
			num(t.Second(), 2)
		case 'T', 'X':
			b.WriteString(strftime("%H:%M:%S", t))
		case 'u':
			num((int(t.Weekday())+6)%7+1, 1)
		case 'U':
			num((t.YearDay()+6-int(t.Weekday()))/7, 2)
		case 'w':
			num(int(t.Weekday()), 1)
		case 'W':
			num((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2)
		case 'y':
			num(t.Year()%100, 2)
		case 'Y':
			num(t.Year(), 4)
		case 'z':
			b.WriteString("+0000")
		case 'Z':
			b.WriteString("UTC")
		default:
			b.WriteByte('%')
			b.WriteByte(c)
		}
	}
	return b.String()
}
