// A position `count` further, held at the ends of its type.
int advanced(int x, int count)
{
    int sum = x + count; // wraps around
    if (count > 0 && sum < x)
        sum = 0x7fffffff;
    if (count < 0 && sum > x)
        sum = int(0x80000000u);
    return sum;
}
