// Go's part of the scenarios of benches/src/runtime/, under the same names.
//
//	peer echo                   an echo server, which prints its address
//	peer version                prints Go's version
//	peer SCENARIO N OPERATIONS  prints the figures
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

var scenarios = map[string]func(n, operations int) []float64{
	"yield":      yield,
	"spawn":      spawn,
	"parked":     parked,
	"timers":     func(n, operations int) []float64 { return timers(n, operations, false) },
	"timers-any": func(n, operations int) []float64 { return timers(n, operations, true) },
	"channels":   channels,
	"hubs":       hubs,
}

func main() {
	switch os.Args[1] {
	case "echo":
		serve()
		return
	case "version":
		fmt.Println("Go", strings.TrimPrefix(runtime.Version(), "go"))
		return
	}
	n, _ := strconv.Atoi(os.Args[2])
	operations, _ := strconv.Atoi(os.Args[3])
	for _, figure := range scenarios[os.Args[1]](n, operations) {
		fmt.Print(figure, " ")
	}
	fmt.Println()
}

// per gives nanoseconds per operation since start, as the one figure.
func per(start time.Time, operations int) []float64 {
	return []float64{float64(time.Since(start).Nanoseconds()) / float64(operations)}
}

func yield(n, operations int) []float64 {
	each := operations / n
	var ended sync.WaitGroup
	ended.Add(n)
	start := time.Now()
	for i := 0; i < n; i++ {
		go func() {
			for j := 0; j < each; j++ {
				runtime.Gosched()
			}
			ended.Done()
		}()
	}
	ended.Wait()
	return per(start, each*n)
}

func spawn(n, operations int) []float64 {
	rounds := operations / n
	results := make(chan int, n)
	start := time.Now()
	for i := 0; i < rounds; i++ {
		for j := 0; j < n; j++ {
			go func() { results <- 1 }()
		}
		for j := 0; j < n; j++ {
			<-results
		}
	}
	return per(start, rounds*n)
}

// memory gives bytes: resident, page tables.
func memory() [2]float64 {
	var found [2]float64
	status, _ := os.Open("/proc/self/status")
	defer status.Close()
	lines := bufio.NewScanner(status)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for index, name := range []string{"VmRSS:", "VmPTE:"} {
			if fields[0] == name {
				kib, _ := strconv.ParseFloat(fields[1], 64)
				found[index] = kib * 1024
			}
		}
	}
	return found
}

func parked(n, _ int) []float64 {
	wake := make(chan struct{})
	var waiting, ended sync.WaitGroup
	waiting.Add(n)
	ended.Add(n)
	before, start := memory(), time.Now()
	for i := 0; i < n; i++ {
		go func() {
			waiting.Done()
			<-wake
			ended.Done()
		}()
	}
	waiting.Wait()
	create, now := per(start, n), memory()
	start = time.Now()
	close(wake)
	ended.Wait()
	figures := []float64{(now[0] - before[0]) / float64(n) / 1024, (now[1] - before[1]) / float64(n)}
	return append(append(figures, create...), per(start, n)...)
}

func timers(n, operations int, anyOfThem bool) []float64 {
	set := func(number int) *time.Timer {
		return time.AfterFunc(30*time.Second+time.Duration(number%1024)*time.Millisecond, func() {})
	}
	table := make([]*time.Timer, n)
	for number := range table {
		table[number] = set(number)
	}
	start := time.Now()
	for number := 0; number < operations; number++ {
		if anyOfThem {
			index := number * 7919 % n
			table[index].Stop()
			table[index] = set(number)
		} else {
			set(number).Stop()
		}
	}
	return per(start, operations)
}

func channels(n, operations int) []float64 {
	if n == 0 {
		there, back := make(chan int, 1), make(chan int, 1)
		go func() {
			for number := range there {
				back <- number
			}
		}()
		start := time.Now()
		for number := 0; number < operations/2; number++ {
			there <- number
			<-back
		}
		return per(start, operations)
	}
	stream := make(chan int, 128)
	start := time.Now()
	go func() {
		for number := 0; number < operations; number++ {
			stream <- number
		}
	}()
	for number := 0; number < operations; number++ {
		<-stream
	}
	return per(start, operations)
}

func hubs(n, operations int) []float64 {
	switch n {
	case 0:
		return spawn(1, operations)
	case 1:
		return spawn(100, operations)
	default:
		return channels(n-2, operations)
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		// Without Nagle's delay, which is Go's default.
		go func() {
			defer connection.Close()
			buffer := make([]byte, 16*1024)
			for {
				count, err := connection.Read(buffer)
				if err != nil {
					return
				}
				if _, err := connection.Write(buffer[:count]); err != nil {
					return
				}
			}
		}()
	}
}
