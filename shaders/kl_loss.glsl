// What kl_loss and its gradient share.
#ifndef ITERA_KL_LOSS_GLSL
#define ITERA_KL_LOSS_GLSL
#include "loss.glsl"

// The logarithms of a token's probabilities: the teacher's p and the student's q.
struct Pair {
    float log_p, log_q;
};

Pair pair_of(float student, float teacher, vec2 of_student, vec2 of_teacher, float scale)
{
    return Pair((teacher - of_teacher.x) * scale - of_teacher.y,
                (student - of_student.x) * scale - of_student.y);
}

// p (ln p - ln q) - p + q, which has the same sum as its first term and none that is negative:
// errors of the logarithms do not add up.
float divergence(Pair pair)
{
    float d = pair.log_p - pair.log_q, p = exp(pair.log_p);
    return abs(d) < 0.5 ? p * (d - one_minus_exp_neg(d)) : p * d - p + exp(pair.log_q);
}

// q - p, without cancellation where they are close
float difference(Pair pair)
{
    float d = pair.log_p - pair.log_q, p = exp(pair.log_p);
    return abs(d) < 0.5 ? -p * one_minus_exp_neg(d) : exp(pair.log_q) - p;
}

#endif
