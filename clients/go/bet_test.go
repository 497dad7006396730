package sorteo

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

var good = Bet{"Ana", "Paz", "30904465", "1999-03-17", 7574}

// borderline are bets next to the rules, with the field that breaks one or nothing.
func borderline() map[Bet]string {
	bets := map[Bet]string{good: ""}
	name := func(text, field string) {
		first, last := good, good
		first.FirstName, last.LastName = text, text
		bets[first] = field
		bets[last] = strings.Replace(field, "first", "last", 1)
	}
	for _, text := range []string{"é", "O'Neil, \"Sam\"", " ", "\u00a0", strings.Repeat("ñ", 60), "\U0001f600", "BET", "#",
		"\u00ac", "\u1161", "\u200a", "\u2010", "\u2027", "\u2070", "\ufffd", "\U000e1000", "\u2801"} {
		name(text, "")
	}
	for _, text := range []string{"", strings.Repeat("ñ", 60) + "x", "a|b", "a\nb", "a\rb", "a\tb", "\x00", "\u007f", "\u0085",
		"\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180b", "\u180f", "\u200b", "\u200f", "\u2028", "\u2029",
		"\u202a", "\u202e", "\u2060", "\u206f", "\u2800", "\u3164", "\ufe00", "\ufe0f", "\ufeff", "\uffa0", "\ufff0", "\ufffb",
		"\U0001bca0", "\U0001bca3", "\U0001d173", "\U0001d17a", "\U000e0000", "\U000e0fff", "\xff"} {
		name(text, "first_name")
	}
	for text, field := range map[string]string{"0": "", "A-1.2/3 z": "", " ": "", strings.Repeat("9", 32): "",
		"": "document", strings.Repeat("9", 33): "document", "1,2": "document", "1_2": "document", "ñ": "document"} {
		bet := good
		bet.Document = text
		bets[bet] = field
	}
	for text, field := range map[string]string{"2000-02-29": "", "9999-12-31": "", "0001-01-01": "", "1582-10-10": "",
		"": "birthdate", "1900-02-29": "birthdate", "1999-04-31": "birthdate", "1999-13-01": "birthdate", "1999-3-17": "birthdate",
		"99-03-17": "birthdate", "1999-03-17 ": "birthdate", "1999/03/17": "birthdate", "+999-03-17": "birthdate",
		"1999-00-10": "birthdate", "1999-01-00": "birthdate", "１999-03-1": "birthdate"} {
		bet := good
		bet.Birthdate = text
		bets[bet] = field
	}
	return bets
}

func TestValidate(t *testing.T) {
	for bet, field := range borderline() {
		err := bet.Validate()
		var bad *BadBetError
		if field == "" && err != nil || field != "" && (!errors.As(err, &bad) || bad.Field != field) {
			t.Errorf("%+q: %v", bet, err)
		}
	}
}

func writeFile(t *testing.T, text string) CSVFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bets.csv")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return CSVFile(path)
}

func readAll(source Source) (Bets, error) {
	rows, err := source.Open()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var bets Bets
	for {
		bet, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return bets, nil
		}
		if err != nil {
			return bets, err
		}
		bets = append(bets, bet)
	}
}

func TestCSVFile(t *testing.T) {
	file := writeFile(t, "Ana,Paz,30904465,1999-03-17,7574\n"+
		"\"Ana\",\"Paz, the \"\"2nd\"\"\",30904465,1999-03-17,\"0007\"\r\n"+
		"\"\"\"\",,1,2,4294967295")
	bets, err := readAll(file)
	expected := Bets{good, {"Ana", `Paz, the "2nd"`, "30904465", "1999-03-17", 7}, {`"`, "", "1", "2", 4294967295}}
	if err != nil || !reflect.DeepEqual(bets, expected) {
		t.Error(bets, err)
	}
	if bets, err := readAll(writeFile(t, "")); err != nil || len(bets) != 0 {
		t.Error(bets, err)
	}
	if _, err := readAll(CSVFile(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestCSVFileIsStrict(t *testing.T) {
	const row = "Ana,Paz,30904465,1999-03-17,7574\n"
	for second, problem := range map[string]string{
		"\n":                                   "1 columns",
		"\r\n":                                 "1 columns",
		"Ana,Paz,30904465,1999-03-17\n":        "4 columns",
		"Ana,Paz,30904465,1999-03-17,7574,\n":  "6 columns",
		"A\"na,Paz,30904465,1999-03-17,7574\n": "does not begin with one",
		"\"Ana\"x,Paz,30904465,1999-03-17,7574\n":  "goes on after",
		"\"Ana\" ,Paz,30904465,1999-03-17,7574\n":  "goes on after",
		"\"An\na\",Paz,30904465,1999-03-17,7574\n": "does not end in its line",
		"\"Ana":                                    "does not end in its line",
		"Ana,Paz,30904465,1999-03-17,7574\r":       "number",
		"Ana,Paz,30904465,1999-03-17,-1\n":         "number",
		"Ana,Paz,30904465,1999-03-17,+1\n":         "number",
		"Ana,Paz,30904465,1999-03-17,1_0\n":        "number",
		"Ana,Paz,30904465,1999-03-17, 1\n":         "number",
		"Ana,Paz,30904465,1999-03-17,4294967296\n": "number",
		"Ana,Paz,30904465,1999-03-17,\n":           "number",
		strings.Repeat("x", csvLineBytesMax):       "longer",
		strings.Repeat("x", 5*csvLineBytesMax):     "longer",
	} {
		_, err := readAll(writeFile(t, row+second))
		var bad *BadBetError
		if !errors.As(err, &bad) || bad.Row != 2 || !strings.Contains(err.Error(), problem) {
			t.Errorf("%.40q: %v", second, err)
		}
	}
	_, err := readAll(writeFile(t, "\uFEFF"+row))
	if err == nil || !strings.Contains(err.Error(), "byte order mark") {
		t.Error(err)
	}
}

// TestName compares with the example of the protocol document.
func TestName(t *testing.T) {
	bets := Bets{good, {"Luis", "Sosa", "25001002", "1988-11-02", 1234}}
	for _, blockRows := range []int{1, 2, 3} {
		p, err := newPlan(ctx, bets, blockRows)
		if err != nil || p.name() != "1fad079dcd3436a4f51cc9892db07ead0aca7bfbbdb722fe50b79811f8fdb63b" {
			t.Error(p.name(), err)
		}
	}
	p, err := newPlan(ctx, Bets{}, 10)
	if err != nil || p.name() != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Error(p.name(), err)
	}
}

// generated is a source of bets that takes no memory.
type generated int

func (g generated) Open() (Rows, error) { return &generatedRows{left: int(g)}, nil }

type generatedRows struct{ left int }

func (r *generatedRows) Next() (Bet, error) {
	if r.left == 0 {
		return Bet{}, io.EOF
	}
	r.left--
	bet := good
	bet.Document = strconv.Itoa(r.left)
	return bet, nil
}

func (r *generatedRows) Close() error { return nil }

func TestMemoryIsFlat(t *testing.T) {
	const rows, bytesMax = 1_000_000, 1 << 20
	p, err := newPlan(context.Background(), generated(rows), defaultBatchRows)
	if err != nil || p.rows != rows {
		t.Fatal(err)
	}
	blocks, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	defer blocks.close()
	for err == nil {
		_, err = blocks.next()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 4*bytesMax {
		t.Errorf("%d bytes", memory.HeapAlloc)
	}
	runtime.KeepAlive(p)
	runtime.KeepAlive(blocks)
}
