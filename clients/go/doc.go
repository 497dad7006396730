// Package sorteo is a client for the lottery server sorteo.
//
// It uploads the bets of an agency exactly once, whatever breaks on the way, says that the agency is done, and
// reads its winners after the draw:
//
//	client := &sorteo.Client{Address: "localhost:12345", Agency: 3}
//	draw, err := client.NewestDraw(ctx)
//	receipt, err := draw.Upload(ctx, sorteo.CSVFile("bets.csv"))
//	err = draw.Done(ctx, receipt.Rows)
//	winners, err := draw.Winners(ctx)
//
// Every step connects as often as it takes, and can be repeated, also by another process: an upload is named by the
// digest of its rows, and everything names its draw.
package sorteo
