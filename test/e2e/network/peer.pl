# What busybox cannot do: datagrams with "don't fragment", and a stream whose every byte is known. perl alone, no module,
# so that it also runs in a pod: see peer-program.ts. Numbers are Linux's (include/uapi/linux/in.h, in6.h; socket.h).
#   peer.pl udp-echo PORT                    answers each datagram with itself
#   peer.pl udp-ask ADDRESS PORT BYTES       sends one of so many bytes of payload: "same", "too big" or what was wrong
#   peer.pl tcp-send PORT MIB                sends so much to everyone who connects
#   peer.pl tcp-bytes MIB                    the same bytes to standard output
# ADDRESS: 8 or 32 hexadecimal digits.
$| = 1;
my ($INET, $INET6, $STREAM, $DGRAM) = (2, 10, 1, 2);
my ($mode, @rest) = @ARGV;

sub in_all { return pack('S n N a16 N', $INET6, $_[0], 0, "\0" x 16, 0) }

sub listener {
  my ($type, $port) = @_;
  socket(my $s, $INET6, $type, 0) or die "socket: $!";
  setsockopt($s, 1, 2, pack('l', 1)) or die "SO_REUSEADDR: $!";
  bind($s, in_all($port)) or die "bind $port: $!";
  return $s;
}

# IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: IP_PMTUDISC_DO.
sub never_fragment {
  my ($s, $v6) = @_;
  setsockopt($s, 0, 10, pack('l', 2)) or die "IP_MTU_DISCOVER: $!";
  !$v6 or setsockopt($s, 41, 23, pack('l', 2)) or die "IPV6_MTU_DISCOVER: $!";
}

# Blocks of 64 KiB that begin with their number: a byte that is lost, doubled or moved changes the sum.
sub stream {
  my ($out, $mib) = @_;
  my $rest = join '', map { chr((($_ * 167) + (($_ >> 8) * 13)) & 255) } 16 .. 65535;
  for my $i (0 .. $mib * 16 - 1) {
    my $block = sprintf('%016d', $i) . $rest;
    my $done = 0;
    while ($done < 65536) {
      my $n = syswrite($out, $block, 65536 - $done, $done);
      return unless defined $n;
      $done += $n;
    }
  }
}

if ($mode eq 'udp-echo') {
  my $s = listener($DGRAM, $rest[0]);
  never_fragment($s, 1);
  while (defined(my $from = recv($s, my $data, 65535, 0))) { send($s, $data, 0, $from) }
} elsif ($mode eq 'udp-ask') {
  my ($address, $port, $bytes) = @rest;
  my $v6 = length($address) == 32;
  my $to = $v6 ? pack('S n N a16 N', $INET6, $port, 0, pack('H*', $address), 0) : pack('S n a4 x8', $INET, $port, pack('H*', $address));
  socket(my $s, $v6 ? $INET6 : $INET, $DGRAM, 0) or die "socket: $!";
  never_fragment($s, $v6);
  my $data = join '', map { chr(($_ * 31 + ($_ >> 8)) & 255) } 1 .. $bytes;
  connect($s, $to) or die "connect: $!";
  # A machine with much else to do may drop one.
  for my $attempt (1 .. 3) {
    if (!defined send($s, $data, 0)) {
      if ($! == 90) { print "too big\n"; exit }
      print "send: $!\n";
      exit;
    }
    my $ready = '';
    vec($ready, fileno($s), 1) = 1;
    next unless select($ready, undef, undef, 5);
    # A router on the way may be who says that it is too large.
    if (!defined recv($s, my $answer, 65535, 0)) { print $! == 90 ? "too big\n" : "recv: $!\n" }
    else { print $answer eq $data ? "same\n" : "other bytes\n" }
    exit;
  }
  print "no answer\n";
} elsif ($mode eq 'tcp-send') {
  my $s = listener($STREAM, $rest[0]);
  listen($s, 16) or die "listen: $!";
  $SIG{PIPE} = 'IGNORE';
  $SIG{CHLD} = 'IGNORE';
  while (accept(my $c, $s)) {
    if (!fork) { stream($c, $rest[1]); exit }
    close $c;
  }
} elsif ($mode eq 'tcp-bytes') {
  stream(\*STDOUT, $rest[0]);
} else {
  die "unknown mode $mode";
}
