# Plots bets per second over the number of clients.
# Arguments: the data that tables.py wrote, and the SVG file to create.

set terminal svg size 760,430 font "sans-serif,14" background rgb "white" name "compare"
set output ARG2

set title "Bets per second, each synced to disk before its reply" font "sans-serif,16"
set xlabel "concurrent clients, batches of 99 bets"
set ylabel "thousand bets per second"

# Logarithmic: each doubling of the clients is one step. Ticks are at the measured numbers.
set logscale x 2
set xrange [0.9:72]
set yrange [0:*]
set ytics 200
set border 3 linecolor rgb "#555555"
set tics nomirror out
set grid ytics linewidth 1 linecolor rgb "#dddddd"
# Labels at the ends of the lines instead of a legend.
unset key
set rmargin 15

plot ARG1 index 0 using 1:($5 / 1000) with lines dashtype 2 linewidth 2 linecolor rgb "#777777", \
     "" index 0 using 1:($4 / 1000) with linespoints pointtype 7 pointsize 0.6 linewidth 2 linecolor rgb "#33691e", \
     "" index 0 using 1:($3 / 1000) with linespoints pointtype 7 pointsize 0.6 linewidth 2 linecolor rgb "#c62828", \
     "" index 0 using 1:($2 / 1000):xtic(1) with linespoints pointtype 7 pointsize 0.7 linewidth 3 linecolor rgb "#1565c0", \
     "" index 1 using 1:($5 / 1000):("SQLite alone") with labels left offset 1,0 textcolor rgb "#777777", \
     "" index 1 using 1:($4 / 1000):("PostgreSQL") with labels left offset 1,0 textcolor rgb "#33691e", \
     "" index 1 using 1:($3 / 1000):("Redis") with labels left offset 1,0 textcolor rgb "#c62828", \
     "" index 1 using 1:($2 / 1000):("sorteo") with labels left offset 1,0 textcolor rgb "#1565c0"
