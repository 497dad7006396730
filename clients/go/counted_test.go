package sorteo

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The counted dialect is not used by the client. These few lines read it for its test vectors.

func encodeCounted(m requestMeaning) ([]byte, error) {
	payload := line(m.Request, m.Agency, m.Token)
	if m.Request == "BETS" {
		var lines []string
		for _, bet := range m.Bets {
			lines = append(lines, line(string(bet.bet().appendCanonical(nil)), bet.Agency))
		}
		payload = strings.Join(lines, "\n")
	}
	return []byte(fmt.Sprintf("%d\n%s", len(payload), payload)), nil
}

func readCounted(r io.Reader) (string, error) {
	in := bufio.NewReader(r)
	digits, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	length, err := strconv.ParseUint(strings.TrimSuffix(digits, "\n"), 10, 20)
	if err != nil {
		return "", err
	}
	payload := make([]byte, length)
	_, err = io.ReadFull(in, payload)
	return string(payload), err
}

func countedMeaning(payload string) (object, error) {
	if payload == "ACK" || strings.HasPrefix(payload, "ERROR_") {
		return object{"reply": payload}, nil
	}
	bets := []betMeaning{}
	for _, row := range strings.Split(payload, "\n") {
		if payload == "" {
			break
		}
		fields := strings.Split(row, "|")
		if len(fields) != 6 {
			return nil, fmt.Errorf("%d fields in %q", len(fields), row)
		}
		number, err := parseNumber(fields[4])
		if err != nil {
			return nil, err
		}
		agency, err := strconv.ParseInt(fields[5], 10, 64)
		if err != nil {
			return nil, err
		}
		bets = append(bets, betMeaning{fields[0], fields[1], fields[2], fields[3], number, &agency})
	}
	return object{"reply": "WINNERS", "bets": bets}, nil
}
