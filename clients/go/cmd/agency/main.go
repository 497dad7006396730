// Agency uploads the bets of a CSV file, reports that the agency is done, waits for the draw and prints the documents
// of its winners, one per line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	sorteo "sorteo/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agency:", strings.TrimPrefix(err.Error(), "sorteo: "))
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("agency", flag.ExitOnError)
	server := flags.String("server", "localhost:12345", "the server, as `HOST:PORT`")
	agency := flags.Uint("agency", 0, "the `number` of the agency (needed)")
	file := flags.String("file", "", "the CSV `file` with the bets (needed)")
	winnersOut := flags.String("winners-out", "", "write the winners to this `file` instead of standard output")
	allowEmpty := flags.Bool("allow-empty", false, "the agency has no bets, so the file may be empty")
	number := flags.Int64("draw", 0, "the `number` of the draw; 0 means the newest")
	giveUpAfter := flags.Duration("give-up-after", 10*time.Minute, "give up after this `time` without progress")
	tokenFile := flags.String("token-file", "", "the `file` with the agency's token")
	useTLS := flags.Bool("tls", false, "use TLS, and never plain text")
	var files sorteo.TLS
	flags.StringVar(&files.CAFile, "tls-ca", "", "the `file` of the authority whose certificate the server must have")
	flags.StringVar(&files.CertFile, "tls-cert", "", "the `file` of the agency's own certificate, if it has one")
	flags.StringVar(&files.KeyFile, "tls-key", "", "the `file` of its key")
	flags.Parse(arguments)
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case !given["agency"] || *file == "":
		return errors.New("-agency and -file are needed; -help describes all flags")
	case uint(uint32(*agency)) != *agency:
		return fmt.Errorf("-agency %d is too high", *agency)
	case *useTLS != (files.CAFile != ""), (files.CertFile == "") != (files.KeyFile == ""), files.CertFile != "" && !*useTLS:
		return errors.New("-tls and -tls-ca need each other; -tls-cert and -tls-key need each other and -tls")
	case flags.NArg() > 0:
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}

	client := &sorteo.Client{
		Address:     *server,
		Agency:      uint32(*agency),
		GiveUpAfter: *giveUpAfter,
		TokenFile:   *tokenFile,
		Observer: sorteo.Observer{
			Stored:   reportProgress(),
			Retrying: func(err error, pause time.Duration) { report("%v; again in %v", err, pause.Round(time.Millisecond)) },
			Waiting:  func() { report("the draw has not taken place yet") },
		},
	}
	if *useTLS {
		client.TLS = &files
	}
	winners, err := takePart(ctx, client, *number, sorteo.CSVFile(*file), *allowEmpty)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, document := range winners {
		fmt.Fprintln(&text, document)
	}
	if *winnersOut != "" {
		return os.WriteFile(*winnersOut, []byte(text.String()), 0o666)
	}
	_, err = os.Stdout.WriteString(text.String())
	return err
}

// takePart does everything that an agency does in a draw.
func takePart(ctx context.Context, client *sorteo.Client, number int64, bets sorteo.Source, allowEmpty bool) ([]string, error) {
	draw, err := chooseDraw(ctx, client, number)
	if err != nil {
		return nil, err
	}
	report("draw %d: to continue in it after a failure, give -draw %d", draw.Number, draw.Number)
	receipt, err := draw.Upload(ctx, bets)
	if errors.Is(err, sorteo.ErrDrawOver) {
		return nil, fmt.Errorf("draw %d took place before all bets were stored: %w", draw.Number, err)
	}
	if err != nil {
		return nil, err
	}
	if receipt.Rows == 0 && !allowEmpty {
		return nil, errors.New("there are no bets: if the agency has none, give -allow-empty")
	}
	if err := draw.Done(ctx, receipt.Rows); err != nil {
		return nil, err
	}
	report("done; waiting for the draw")
	return draw.Winners(ctx)
}

func chooseDraw(ctx context.Context, client *sorteo.Client, number int64) (*sorteo.Draw, error) {
	if number == 0 {
		return client.NewestDraw(ctx)
	}
	return client.Draw(ctx, number)
}

// progressInterval is the time between two lines of an upload's progress.
const progressInterval = 5 * time.Second

// reportProgress returns an observer that reports every few seconds, and when all is stored.
func reportProgress() func(rows, total int64) {
	last := time.Now()
	return func(rows, total int64) {
		if rows == total || time.Since(last) >= progressInterval {
			last = time.Now()
			report("%d of %d bets are stored", rows, total)
		}
	}
}

func report(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "agency: "+format+"\n", values...)
}
